-- Tables.
-- Owned by this file; the bundle's job `setup` runs the same statements.
-- Rendered from crypto_assets/contracts by `python -m crypto_assets.rendered_files`.

CREATE TABLE IF NOT EXISTS `crypto_analytics`.`bronze`.`raw_prices` (
  `topic` STRING NOT NULL COMMENT 'Kafka topic.',
  `topic_id` STRING NOT NULL COMMENT 'Incarnation of the topic: a re-created topic gets a new id.',
  `partition` INT NOT NULL COMMENT 'Kafka partition.',
  `offset` BIGINT NOT NULL COMMENT 'Kafka offset; first missing offset if kind = gap.',
  `kafka_timestamp` TIMESTAMP COMMENT 'Broker timestamp: when the record became available. Null for a gap.',
  `message_key` STRING COMMENT 'Message key; coin_id for prices.',
  `raw_json` STRING COMMENT 'Unmodified record value; null if it is not UTF-8 text.',
  `raw_bytes` BINARY COMMENT 'Record value if it is not UTF-8 text, else null.',
  `headers` STRING COMMENT 'Record headers as a JSON object with sorted keys.',
  `arrival_hour` TIMESTAMP NOT NULL COMMENT 'Start of the hour whose offset range contains the record.',
  `event_hour` TIMESTAMP COMMENT 'Hour of last_updated_at, parsed leniently; null if invalid, later than arrival + 60 s, or before the first partition.',
  `kind` STRING NOT NULL COMMENT 'record, or gap for offsets lost to retention and accepted as lost.',
  `range_start` BIGINT NOT NULL COMMENT 'First offset of the commit\'s range.',
  `range_end` BIGINT NOT NULL COMMENT 'End (exclusive) of the commit\'s range.',
  `seq` BIGINT NOT NULL COMMENT 'Sequence number of the commit within its topic and hour, from 1.',
  `batch_id` STRING NOT NULL COMMENT 'Identifier of the write.',
  `bronze_ingested_at` TIMESTAMP NOT NULL COMMENT 'When the record was written to this table.'
)
USING DELTA
PARTITIONED BY (`arrival_hour`)
COMMENT 'Every price record exactly as read from Kafka, with its coordinates. The system of record, from which all downstream tables can be rebuilt. Appended exactly once; each commit also records its offset ranges.'
TBLPROPERTIES ('delta.isolationLevel' = 'Serializable', 'delta.checkpointInterval' = '10', 'delta.enableDeletionVectors' = 'false', 'delta.dataSkippingStatsColumns' = 'partition,offset,kafka_timestamp,event_hour,range_start,range_end', 'delta.logRetentionDuration' = 'interval 30 days', 'delta.deletedFileRetentionDuration' = 'interval 7 days');

CREATE TABLE IF NOT EXISTS `crypto_analytics`.`bronze`.`market_history` (
  `coin_id` STRING NOT NULL COMMENT 'Coin.',
  `day` DATE NOT NULL COMMENT 'UTC day of the points.',
  `day_start` TIMESTAMP NOT NULL COMMENT 'Start of `day`.',
  `granularity` STRING NOT NULL COMMENT '5m, 1h or 1d: spacing of the reply\'s points.',
  `raw_json` STRING NOT NULL COMMENT 'The reply\'s points of that day: prices, market_caps, total_volumes.',
  `points` INT NOT NULL COMMENT 'Number of price points.',
  `fetched_at` TIMESTAMP NOT NULL COMMENT 'When the reply was complete; the points\' available_at.',
  `source` STRING NOT NULL COMMENT 'Data mode that fetched it.'
)
USING DELTA
PARTITIONED BY (`day`)
COMMENT 'Raw market_chart/range replies by coin and day, for days before polling started or with gaps.'
TBLPROPERTIES ('delta.isolationLevel' = 'Serializable', 'delta.checkpointInterval' = '10', 'delta.enableDeletionVectors' = 'false', 'delta.logRetentionDuration' = 'interval 30 days', 'delta.deletedFileRetentionDuration' = 'interval 7 days');

CREATE TABLE IF NOT EXISTS `crypto_analytics`.`silver`.`prices` (
  `coin_id` STRING NOT NULL COMMENT 'Coin.',
  `symbol` STRING NOT NULL COMMENT 'Ticker symbol, upper case.',
  `name` STRING COMMENT 'Name reported by the source.',
  `last_updated_at` TIMESTAMP NOT NULL COMMENT 'Event time: the source\'s timestamp of the quote.',
  `price_usd` DECIMAL(38,18) NOT NULL COMMENT 'Price. [USD]',
  `market_cap_usd` DECIMAL(38,18) COMMENT 'Market capitalisation; null = unknown. [USD]',
  `volume_24h_usd` DECIMAL(38,18) COMMENT 'Rolling 24 h volume; null = unknown. [USD]',
  `change_1h_pct` DECIMAL(38,18) COMMENT 'Change over 1 h, computed by the source. [percent]',
  `change_24h_pct` DECIMAL(38,18) COMMENT 'Change over 24 h, computed by the source. [percent]',
  `change_7d_pct` DECIMAL(38,18) COMMENT 'Change over 7 d, computed by the source. [percent]',
  `ingestion_timestamp` TIMESTAMP COMMENT 'When the producer received the quote; null for history.',
  `available_at` TIMESTAMP NOT NULL COMMENT 'When the row became available: broker timestamp, or fetch time for history.',
  `source` STRING NOT NULL COMMENT 'coingecko, replay or simulator.',
  `granularity` STRING NOT NULL COMMENT 'tick for a polled sample; 5m, 1h or 1d for history.',
  `cadence_s` DOUBLE COMMENT 'Effective poll interval; null for history. [seconds]',
  `poll_id` STRING COMMENT 'Poll that returned the quote; null for history.',
  `topic_id` STRING COMMENT 'Topic incarnation; null for history.',
  `partition` INT COMMENT 'Kafka partition; null for history.',
  `offset` BIGINT COMMENT 'Kafka offset; null for history.',
  `day` DATE NOT NULL COMMENT 'UTC day of `hour`; the Delta partition.',
  `hour` TIMESTAMP NOT NULL COMMENT 'Hour of last_updated_at.'
)
USING DELTA
PARTITIONED BY (`day`)
COMMENT 'Typed, deduplicated quotes: one row per coin and source timestamp, first arrival wins. History points fill only 5-minute slots without a live sample.'
TBLPROPERTIES ('delta.isolationLevel' = 'Serializable', 'delta.checkpointInterval' = '10', 'delta.enableDeletionVectors' = 'false', 'delta.logRetentionDuration' = 'interval 30 days', 'delta.deletedFileRetentionDuration' = 'interval 7 days');

CREATE TABLE IF NOT EXISTS `crypto_analytics`.`silver`.`quarantine` (
  `topic` STRING NOT NULL COMMENT 'Kafka topic.',
  `topic_id` STRING NOT NULL COMMENT 'Incarnation of the topic: a re-created topic gets a new id.',
  `partition` INT NOT NULL COMMENT 'Kafka partition.',
  `offset` BIGINT NOT NULL COMMENT 'Kafka offset; first missing offset if kind = gap.',
  `kafka_timestamp` TIMESTAMP COMMENT 'Broker timestamp: when the record became available. Null for a gap.',
  `message_key` STRING COMMENT 'Message key; coin_id for prices.',
  `raw_json` STRING COMMENT 'Unmodified record value; null if it is not UTF-8 text.',
  `raw_bytes` BINARY COMMENT 'Record value if it is not UTF-8 text, else null.',
  `headers` STRING COMMENT 'Record headers as a JSON object with sorted keys.',
  `coin_id` STRING COMMENT 'coin_id, if readable.',
  `reasons` ARRAY<STRING> NOT NULL COMMENT 'All reasons, sorted.',
  `detail` STRING NOT NULL COMMENT 'Offending value, for readers.',
  `day` DATE NOT NULL COMMENT 'UTC day of `hour`; the Delta partition.',
  `hour` TIMESTAMP NOT NULL COMMENT 'Arrival hour.'
)
USING DELTA
PARTITIONED BY (`day`)
COMMENT 'Records rejected by Silver, with every reason that applies. Nothing is dropped: per arrival hour, Bronze records = valid + quarantined.'
TBLPROPERTIES ('delta.isolationLevel' = 'Serializable', 'delta.checkpointInterval' = '10', 'delta.enableDeletionVectors' = 'false', 'delta.logRetentionDuration' = 'interval 30 days', 'delta.deletedFileRetentionDuration' = 'interval 7 days');

CREATE TABLE IF NOT EXISTS `crypto_analytics`.`gold`.`bars_1m` (
  `coin_id` STRING NOT NULL COMMENT 'Coin.',
  `symbol` STRING NOT NULL COMMENT 'Ticker symbol.',
  `window_start` TIMESTAMP NOT NULL COMMENT 'Start of the window.',
  `window_end` TIMESTAMP NOT NULL COMMENT 'End (exclusive) of the window.',
  `open` DECIMAL(38,18) NOT NULL COMMENT 'First sample. [USD]',
  `high` DECIMAL(38,18) NOT NULL COMMENT 'Highest sample. [USD]',
  `low` DECIMAL(38,18) NOT NULL COMMENT 'Lowest sample. [USD]',
  `close` DECIMAL(38,18) NOT NULL COMMENT 'Last sample. [USD]',
  `price_avg` DOUBLE NOT NULL COMMENT 'Arithmetic mean of the samples. [USD]',
  `price_vol` DOUBLE COMMENT 'Sample standard deviation; null if sample_count = 1. [USD]',
  `range` DOUBLE COMMENT 'high/low - 1; null if sample_count = 1. [ratio]',
  `volume_24h_usd` DECIMAL(38,18) COMMENT 'Last rolling 24 h volume; null = unknown. [USD]',
  `market_cap_usd` DECIMAL(38,18) COMMENT 'Last market capitalisation; null = unknown. [USD]',
  `sample_count` BIGINT NOT NULL COMMENT 'Samples in the window.',
  `expected_count` BIGINT COMMENT 'Samples expected at the effective cadence; null for history.',
  `granularity` STRING NOT NULL COMMENT 'tick, or the coarsest history granularity used.',
  `first_event_at` TIMESTAMP NOT NULL COMMENT 'Event time of the first sample.',
  `last_event_at` TIMESTAMP NOT NULL COMMENT 'Event time of the last sample.',
  `available_at` TIMESTAMP NOT NULL COMMENT 'Latest available_at of the samples.',
  `is_closed` BOOLEAN NOT NULL COMMENT 'Bronze covers the window\'s end + 60 s.',
  `is_complete` BOOLEAN NOT NULL COMMENT 'Closed and at least 80 % of the expected samples.',
  `day` DATE NOT NULL COMMENT 'UTC day of `hour`; the Delta partition.',
  `hour` TIMESTAMP NOT NULL COMMENT 'Hour of window_start.'
)
USING DELTA
PARTITIONED BY (`day`)
COMMENT 'OHLC of polled samples, not of trades, per coin and minute. A window without samples has no row.'
TBLPROPERTIES ('delta.isolationLevel' = 'Serializable', 'delta.checkpointInterval' = '10', 'delta.enableDeletionVectors' = 'false', 'delta.logRetentionDuration' = 'interval 30 days', 'delta.deletedFileRetentionDuration' = 'interval 7 days');

CREATE TABLE IF NOT EXISTS `crypto_analytics`.`gold`.`bars_5m` (
  `coin_id` STRING NOT NULL COMMENT 'Coin.',
  `symbol` STRING NOT NULL COMMENT 'Ticker symbol.',
  `window_start` TIMESTAMP NOT NULL COMMENT 'Start of the window.',
  `window_end` TIMESTAMP NOT NULL COMMENT 'End (exclusive) of the window.',
  `open` DECIMAL(38,18) NOT NULL COMMENT 'First sample. [USD]',
  `high` DECIMAL(38,18) NOT NULL COMMENT 'Highest sample. [USD]',
  `low` DECIMAL(38,18) NOT NULL COMMENT 'Lowest sample. [USD]',
  `close` DECIMAL(38,18) NOT NULL COMMENT 'Last sample. [USD]',
  `price_avg` DOUBLE NOT NULL COMMENT 'Arithmetic mean of the samples. [USD]',
  `price_vol` DOUBLE COMMENT 'Sample standard deviation; null if sample_count = 1. [USD]',
  `range` DOUBLE COMMENT 'high/low - 1; null if sample_count = 1. [ratio]',
  `volume_24h_usd` DECIMAL(38,18) COMMENT 'Last rolling 24 h volume; null = unknown. [USD]',
  `market_cap_usd` DECIMAL(38,18) COMMENT 'Last market capitalisation; null = unknown. [USD]',
  `sample_count` BIGINT NOT NULL COMMENT 'Samples in the window.',
  `expected_count` BIGINT COMMENT 'Samples expected at the effective cadence; null for history.',
  `granularity` STRING NOT NULL COMMENT 'tick, or the coarsest history granularity used.',
  `first_event_at` TIMESTAMP NOT NULL COMMENT 'Event time of the first sample.',
  `last_event_at` TIMESTAMP NOT NULL COMMENT 'Event time of the last sample.',
  `available_at` TIMESTAMP NOT NULL COMMENT 'Latest available_at of the samples.',
  `is_closed` BOOLEAN NOT NULL COMMENT 'Bronze covers the window\'s end + 60 s.',
  `is_complete` BOOLEAN NOT NULL COMMENT 'Closed and at least 80 % of the expected samples.',
  `day` DATE NOT NULL COMMENT 'UTC day of `hour`; the Delta partition.',
  `hour` TIMESTAMP NOT NULL COMMENT 'Hour of window_start.'
)
USING DELTA
PARTITIONED BY (`day`)
COMMENT 'OHLC of polled samples, not of trades, per coin and 5 minutes. A window without samples has no row.'
TBLPROPERTIES ('delta.isolationLevel' = 'Serializable', 'delta.checkpointInterval' = '10', 'delta.enableDeletionVectors' = 'false', 'delta.logRetentionDuration' = 'interval 30 days', 'delta.deletedFileRetentionDuration' = 'interval 7 days');

CREATE TABLE IF NOT EXISTS `crypto_analytics`.`gold`.`bars_1h` (
  `coin_id` STRING NOT NULL COMMENT 'Coin.',
  `symbol` STRING NOT NULL COMMENT 'Ticker symbol.',
  `window_start` TIMESTAMP NOT NULL COMMENT 'Start of the window.',
  `window_end` TIMESTAMP NOT NULL COMMENT 'End (exclusive) of the window.',
  `open` DECIMAL(38,18) NOT NULL COMMENT 'First sample. [USD]',
  `high` DECIMAL(38,18) NOT NULL COMMENT 'Highest sample. [USD]',
  `low` DECIMAL(38,18) NOT NULL COMMENT 'Lowest sample. [USD]',
  `close` DECIMAL(38,18) NOT NULL COMMENT 'Last sample. [USD]',
  `price_avg` DOUBLE NOT NULL COMMENT 'Arithmetic mean of the samples. [USD]',
  `price_vol` DOUBLE COMMENT 'Sample standard deviation; null if sample_count = 1. [USD]',
  `range` DOUBLE COMMENT 'high/low - 1; null if sample_count = 1. [ratio]',
  `volume_24h_usd` DECIMAL(38,18) COMMENT 'Last rolling 24 h volume; null = unknown. [USD]',
  `market_cap_usd` DECIMAL(38,18) COMMENT 'Last market capitalisation; null = unknown. [USD]',
  `sample_count` BIGINT NOT NULL COMMENT 'Samples in the window.',
  `expected_count` BIGINT COMMENT 'Samples expected at the effective cadence; null for history.',
  `granularity` STRING NOT NULL COMMENT 'tick, or the coarsest history granularity used.',
  `first_event_at` TIMESTAMP NOT NULL COMMENT 'Event time of the first sample.',
  `last_event_at` TIMESTAMP NOT NULL COMMENT 'Event time of the last sample.',
  `available_at` TIMESTAMP NOT NULL COMMENT 'Latest available_at of the samples.',
  `is_closed` BOOLEAN NOT NULL COMMENT 'Bronze covers the window\'s end + 60 s.',
  `is_complete` BOOLEAN NOT NULL COMMENT 'Closed and at least 80 % of the expected samples.',
  `day` DATE NOT NULL COMMENT 'UTC day of `hour`; the Delta partition.',
  `hour` TIMESTAMP NOT NULL COMMENT 'Hour of window_start.'
)
USING DELTA
PARTITIONED BY (`day`)
COMMENT 'OHLC of polled samples, not of trades, per coin and hour. A window without samples has no row.'
TBLPROPERTIES ('delta.isolationLevel' = 'Serializable', 'delta.checkpointInterval' = '10', 'delta.enableDeletionVectors' = 'false', 'delta.logRetentionDuration' = 'interval 30 days', 'delta.deletedFileRetentionDuration' = 'interval 7 days');

CREATE TABLE IF NOT EXISTS `crypto_analytics`.`gold`.`bars_1d` (
  `coin_id` STRING NOT NULL COMMENT 'Coin.',
  `symbol` STRING NOT NULL COMMENT 'Ticker symbol.',
  `window_start` TIMESTAMP NOT NULL COMMENT 'Start of the window.',
  `window_end` TIMESTAMP NOT NULL COMMENT 'End (exclusive) of the window.',
  `open` DECIMAL(38,18) NOT NULL COMMENT 'First sample. [USD]',
  `high` DECIMAL(38,18) NOT NULL COMMENT 'Highest sample. [USD]',
  `low` DECIMAL(38,18) NOT NULL COMMENT 'Lowest sample. [USD]',
  `close` DECIMAL(38,18) NOT NULL COMMENT 'Last sample. [USD]',
  `price_avg` DOUBLE NOT NULL COMMENT 'Arithmetic mean of the samples. [USD]',
  `price_vol` DOUBLE COMMENT 'Sample standard deviation; null if sample_count = 1. [USD]',
  `range` DOUBLE COMMENT 'high/low - 1; null if sample_count = 1. [ratio]',
  `volume_24h_usd` DECIMAL(38,18) COMMENT 'Last rolling 24 h volume; null = unknown. [USD]',
  `market_cap_usd` DECIMAL(38,18) COMMENT 'Last market capitalisation; null = unknown. [USD]',
  `sample_count` BIGINT NOT NULL COMMENT 'Samples in the window.',
  `expected_count` BIGINT COMMENT 'Samples expected at the effective cadence; null for history.',
  `granularity` STRING NOT NULL COMMENT 'tick, or the coarsest history granularity used.',
  `first_event_at` TIMESTAMP NOT NULL COMMENT 'Event time of the first sample.',
  `last_event_at` TIMESTAMP NOT NULL COMMENT 'Event time of the last sample.',
  `available_at` TIMESTAMP NOT NULL COMMENT 'Latest available_at of the samples.',
  `is_closed` BOOLEAN NOT NULL COMMENT 'Bronze covers the window\'s end + 60 s.',
  `is_complete` BOOLEAN NOT NULL COMMENT 'Closed and at least 80 % of the expected samples.',
  `day` DATE NOT NULL COMMENT 'UTC day of `hour`; the Delta partition.',
  `day_start` TIMESTAMP NOT NULL COMMENT 'Start of `day`.'
)
USING DELTA
PARTITIONED BY (`day`)
COMMENT 'OHLC of polled samples, not of trades, per coin and day. A window without samples has no row.'
TBLPROPERTIES ('delta.isolationLevel' = 'Serializable', 'delta.checkpointInterval' = '10', 'delta.enableDeletionVectors' = 'false', 'delta.logRetentionDuration' = 'interval 30 days', 'delta.deletedFileRetentionDuration' = 'interval 7 days');

CREATE TABLE IF NOT EXISTS `crypto_analytics`.`gold`.`dim_coin` (
  `coin_key` STRING NOT NULL COMMENT 'Surrogate key: coin_id and valid_from.',
  `coin_id` STRING NOT NULL COMMENT 'Coin.',
  `symbol` STRING NOT NULL COMMENT 'Ticker symbol, upper case.',
  `name` STRING NOT NULL COMMENT 'Name.',
  `aliases` ARRAY<STRING> NOT NULL COMMENT 'Former ids, by date of change.',
  `valid_from` TIMESTAMP NOT NULL COMMENT 'Start (inclusive).',
  `valid_to` TIMESTAMP COMMENT 'End (exclusive); null = current.',
  `is_current` BOOLEAN NOT NULL COMMENT 'True for the newest version.',
  `is_active` BOOLEAN NOT NULL COMMENT 'True if the coin is polled in this span.'
)
USING DELTA
COMMENT 'Coin identities over time (SCD type 2): one row per coin and span without changes.'
TBLPROPERTIES ('delta.isolationLevel' = 'Serializable', 'delta.checkpointInterval' = '10', 'delta.enableDeletionVectors' = 'false', 'delta.logRetentionDuration' = 'interval 30 days', 'delta.deletedFileRetentionDuration' = 'interval 7 days');

CREATE TABLE IF NOT EXISTS `crypto_analytics`.`gold`.`dim_date` (
  `date_key` INT NOT NULL COMMENT 'yyyymmdd.',
  `day` DATE NOT NULL COMMENT 'UTC day.',
  `year` INT NOT NULL COMMENT 'Year.',
  `quarter` INT NOT NULL COMMENT 'Quarter, 1-4.',
  `month` INT NOT NULL COMMENT 'Month, 1-12.',
  `day_of_month` INT NOT NULL COMMENT 'Day of month.',
  `iso_week` INT NOT NULL COMMENT 'ISO 8601 week.',
  `iso_weekday` INT NOT NULL COMMENT 'ISO weekday, Monday = 1.',
  `is_weekend` BOOLEAN NOT NULL COMMENT 'Saturday or Sunday.'
)
USING DELTA
COMMENT 'Calendar of UTC days from the first partition to the end of next year.'
TBLPROPERTIES ('delta.isolationLevel' = 'Serializable', 'delta.checkpointInterval' = '10', 'delta.enableDeletionVectors' = 'false', 'delta.logRetentionDuration' = 'interval 30 days', 'delta.deletedFileRetentionDuration' = 'interval 7 days');

CREATE TABLE IF NOT EXISTS `crypto_analytics`.`gold`.`latest_prices` (
  `coin_id` STRING NOT NULL COMMENT 'Coin.',
  `symbol` STRING NOT NULL COMMENT 'Ticker symbol.',
  `name` STRING COMMENT 'Name.',
  `price_usd` DECIMAL(38,18) NOT NULL COMMENT 'Price. [USD]',
  `market_cap_usd` DECIMAL(38,18) COMMENT 'Market capitalisation. [USD]',
  `volume_24h_usd` DECIMAL(38,18) COMMENT 'Rolling 24 h volume. [USD]',
  `change_1h_pct` DECIMAL(38,18) COMMENT 'Change over 1 h. [percent]',
  `change_24h_pct` DECIMAL(38,18) COMMENT 'Change over 24 h. [percent]',
  `change_7d_pct` DECIMAL(38,18) COMMENT 'Change over 7 d. [percent]',
  `last_updated_at` TIMESTAMP NOT NULL COMMENT 'Event time of the quote.',
  `available_at` TIMESTAMP NOT NULL COMMENT 'When the quote became available.',
  `source` STRING NOT NULL COMMENT 'Data mode.',
  `covered_until` TIMESTAMP NOT NULL COMMENT 'Watermark: highest broker timestamp that Bronze covered when this was written.',
  `covered_offsets` STRING NOT NULL COMMENT 'JSON object: end offset reflected in this table, per Kafka partition.',
  `age_s` DOUBLE NOT NULL COMMENT 'covered_until - last_updated_at. [seconds]',
  `refreshed_at` TIMESTAMP NOT NULL COMMENT 'When this was written.'
)
USING DELTA
COMMENT 'Newest quote of every coin with its age.'
TBLPROPERTIES ('delta.isolationLevel' = 'Serializable', 'delta.checkpointInterval' = '10', 'delta.enableDeletionVectors' = 'false', 'delta.logRetentionDuration' = 'interval 30 days', 'delta.deletedFileRetentionDuration' = 'interval 7 days');

CREATE TABLE IF NOT EXISTS `crypto_analytics`.`gold`.`leaderboard_24h` (
  `rank` INT NOT NULL COMMENT '1 = best.',
  `coin_id` STRING NOT NULL COMMENT 'Coin.',
  `symbol` STRING NOT NULL COMMENT 'Ticker symbol.',
  `price_usd` DECIMAL(38,18) NOT NULL COMMENT 'Newest close. [USD]',
  `price_24h_ago_usd` DECIMAL(38,18) COMMENT 'Close of the newest bar at least 24 h older, else open of the oldest bar less than 24 h older, at most 10 min off; else null. [USD]',
  `price_24h_ago_at` TIMESTAMP COMMENT 'Event time of that price; null without one.',
  `change_24h` DOUBLE COMMENT 'price_usd / price_24h_ago_usd - 1; null = unknown. [ratio]',
  `high_24h` DECIMAL(38,18) NOT NULL COMMENT 'Highest sample of 24 h. [USD]',
  `low_24h` DECIMAL(38,18) NOT NULL COMMENT 'Lowest sample of 24 h. [USD]',
  `volume_24h_usd` DECIMAL(38,18) COMMENT 'Last rolling 24 h volume. [USD]',
  `window_end` TIMESTAMP NOT NULL COMMENT 'End of the newest bar.'
)
USING DELTA
COMMENT 'Coins ranked by their change over the last 24 hours of bars, best first.'
TBLPROPERTIES ('delta.isolationLevel' = 'Serializable', 'delta.checkpointInterval' = '10', 'delta.enableDeletionVectors' = 'false', 'delta.logRetentionDuration' = 'interval 30 days', 'delta.deletedFileRetentionDuration' = 'interval 7 days');

CREATE TABLE IF NOT EXISTS `crypto_analytics`.`features`.`price_features` (
  `coin_id` STRING NOT NULL COMMENT 'Coin.',
  `window_start` TIMESTAMP NOT NULL COMMENT 'Start of the slot.',
  `window_end` TIMESTAMP NOT NULL COMMENT 'End of the slot; features use no later data.',
  `price` DOUBLE COMMENT 'price(t): newest sample at most 2 x cadence (max. 10 min) old, else null. [USD]',
  `price_at` TIMESTAMP COMMENT 'Event time of that sample.',
  `staleness_s` DOUBLE COMMENT 'window_end - price_at. [seconds]',
  `sample_count` BIGINT NOT NULL COMMENT 'Samples in the slot.',
  `r5` DOUBLE COMMENT 'ln price(t) - ln price(t-5 min). [log return]',
  `r15` DOUBLE COMMENT 'Log return over 15 min. [log return]',
  `r1h` DOUBLE COMMENT 'Log return over 1 h. [log return]',
  `r24h` DOUBLE COMMENT 'Log return over 24 h. [log return]',
  `r5_median` DOUBLE COMMENT 'Median of r5 over the 288 slots before t. [log return]',
  `s` DOUBLE COMMENT '1.4826 x MAD of r5 over the 288 slots before t (at least 144), floored at 1e-5. [log return]',
  `rz` DOUBLE COMMENT '(r5 - r5_median) / s. [own sigma]',
  `rv1h` DOUBLE COMMENT 'Root of the sum of r5 squared over 12 slots. [log return]',
  `rv15m` DOUBLE COMMENT 'The same over 3 slots. Null in rows of version 1. [log return]',
  `rv4h` DOUBLE COMMENT 'The same over 48 slots. Null in rows of version 1. [log return]',
  `rv24h` DOUBLE COMMENT 'The same over 288 slots, of which at least 144 known stand for the rest. Null in rows of version 1. [log return]',
  `rsi14` DOUBLE COMMENT 'Cutler\'s RSI (plain means) over 14 slots. [0-100]',
  `macd` DOUBLE COMMENT 'MACD on ln price, finite 130-slot kernels of 12 and 26. [log price]',
  `macd_signal` DOUBLE COMMENT 'The same kernel with span 9, applied to macd. [log price]',
  `macd_hist` DOUBLE COMMENT 'macd - macd_signal. [log price]',
  `bollinger_b` DOUBLE COMMENT 'Bollinger %b: 20 slots, 2 sigma. [ratio]',
  `r5_market` DOUBLE COMMENT 'r5 - median r5 of the other coins (at least two), else null. [log return]',
  `s_market` DOUBLE COMMENT 'Root of the EWMA of r5_market squared over the 288 slots before t (half-life 72 slots; at least 144 known), floored at 1e-5. Null in rows of version 1. [log return]',
  `rz_common` DOUBLE COMMENT 'Median of rz over the coins of the slot (at least three): how far all of them move. Null in rows before version 3. [own sigma]',
  `common_activity` DOUBLE COMMENT 'How much the whole market moved in the last hour, compared with the last day: root of the EWMA (half-life 12 slots) of the other coins\' median r5 squared over its mean, both over the 288 slots before t (at least 144 known) and floored at 1e-10. Null in rows before version 4. [ratio]',
  `unchanged_slots` BIGINT COMMENT 'Slots up to t with the same price, at most 288; 0 without a price. Null in rows of version 1.',
  `basket_hash` STRING NOT NULL COMMENT 'Hash of the coins with r5 in the slot.',
  `volume_change` DOUBLE COMMENT 'ln(V24(t)/V24(t-5 min)): never a model input. [log ratio]',
  `null_reason` STRING COMMENT 'Why values are null: stale_price, no_lag, short_history, few_coins (in the slot, or for s_market), no_volume; comma separated, sorted; null = complete.',
  `available_at` TIMESTAMP COMMENT 'Latest available_at of the row\'s inputs, those of the other coins\' returns over the 288 slots before t included; null without inputs.',
  `is_complete` BOOLEAN NOT NULL COMMENT 'True if the slot\'s bar is complete.',
  `day` DATE NOT NULL COMMENT 'UTC day of `hour`; the Delta partition.',
  `hour` TIMESTAMP NOT NULL COMMENT 'Hour of window_start.'
)
USING DELTA
PARTITIONED BY (`day`)
COMMENT 'Scale-free, point-in-time features per coin on the 5-minute grid: no data after window_end, lags by grid time. One row per active coin and closed slot; values that cannot be computed are null, with a reason.'
TBLPROPERTIES ('delta.isolationLevel' = 'Serializable', 'delta.checkpointInterval' = '10', 'delta.enableDeletionVectors' = 'false', 'delta.logRetentionDuration' = 'interval 30 days', 'delta.deletedFileRetentionDuration' = 'interval 7 days');

CREATE TABLE IF NOT EXISTS `crypto_analytics`.`gold`.`anomalies` (
  `coin_id` STRING NOT NULL COMMENT 'Coin.',
  `symbol` STRING NOT NULL COMMENT 'Ticker symbol.',
  `window_start` TIMESTAMP NOT NULL COMMENT 'Start of the slot.',
  `window_end` TIMESTAMP NOT NULL COMMENT 'End of the slot.',
  `anomaly_score` DOUBLE COMMENT 'Score, higher = more anomalous; null if inputs are null. Of a version with several scores (algorithm union) the highest of score / threshold; else |rz| in own sigma, or the forest\'s score.',
  `threshold` DOUBLE NOT NULL COMMENT 'Coin\'s threshold in that model version; 1 for several scores.',
  `is_anomaly` BOOLEAN NOT NULL COMMENT 'Score above threshold; false if the score is null.',
  `detectors` ARRAY<STRING> COMMENT 'Scores above their thresholds, sorted: common, market, robust_z, isolation_forest. Null in rows from before there were several.',
  `z_threshold` DOUBLE COMMENT 'Coin\'s threshold of |rz| (size_sigma); null if the version does not use it. [own sigma]',
  `market_score` DOUBLE COMMENT '|r5_market| / sqrt(s_market x max(s_market, 0.3 s)).',
  `market_threshold` DOUBLE COMMENT 'Coin\'s threshold of market_score; null if the version does not use it.',
  `common_score` DOUBLE COMMENT '|rz_common| / sqrt(common_activity between 0.5 and 2): how far all coins move in the slot. |rz_common| of versions without `by_activity`; null in rows from before there was this score.',
  `common_threshold` DOUBLE COMMENT 'Coin\'s threshold of common_score; null if the version does not use it.',
  `explanation` STRING COMMENT 'JSON list of the strongest features with their values, in the coin\'s own sigma.',
  `size_sigma` DOUBLE COMMENT '|rz| of the slot, which is the score robust_z. [own sigma]',
  `size_market_sigma` DOUBLE COMMENT '|r5_market| / s_market of the slot. [market-relative sigma]',
  `similar_windows` STRING COMMENT 'JSON list of the three nearest of the coin\'s 20 strongest windows before the version\'s cut-off: window_end, and distance of the inputs in own sigma. Null unless flagged.',
  `scope` STRING COMMENT 'Of a flag: coin_specific if market fired, market_wide if only common or robust_z did. Of a version with one score, or without market_score: market_wide if at least half of the other coins were flagged within 5 min.',
  `suspicion` STRING COMMENT 'Data-quality suspicion: stale, frozen (the same price for longer than the coin\'s 28 days before the version\'s cut-off had it), single_sample, incomplete; or null.',
  `price` DOUBLE COMMENT 'price(t). [USD]',
  `model_name` STRING NOT NULL COMMENT 'Registered model.',
  `model_version` STRING NOT NULL COMMENT 'Model version used.',
  `scored_at` TIMESTAMP NOT NULL COMMENT 'When the row was first scored.',
  `latency_s` DOUBLE NOT NULL COMMENT 'scored_at - window_end. [seconds]',
  `inference_ms` DOUBLE COMMENT 'Time of the model call that scored the row: all coins and slots of a day, or of the part of it that the run covers. Null for rows scored before it was measured. [milliseconds]',
  `revision` INT NOT NULL COMMENT '0 initially; incremented when a restatement changes the row.',
  `previous_is_anomaly` BOOLEAN COMMENT 'Flag before the restatement; null at revision 0.',
  `day` DATE NOT NULL COMMENT 'UTC day of `hour`; the Delta partition.',
  `hour` TIMESTAMP NOT NULL COMMENT 'Hour of window_start.'
)
USING DELTA
PARTITIONED BY (`day`)
COMMENT 'Anomaly score of every coin and closed 5-minute slot, by the model version effective at the time.'
TBLPROPERTIES ('delta.isolationLevel' = 'Serializable', 'delta.checkpointInterval' = '10', 'delta.enableDeletionVectors' = 'false', 'delta.logRetentionDuration' = 'interval 30 days', 'delta.deletedFileRetentionDuration' = 'interval 7 days');

CREATE TABLE IF NOT EXISTS `crypto_analytics`.`gold`.`price_predictions` (
  `coin_id` STRING NOT NULL COMMENT 'Coin.',
  `window_end` TIMESTAMP NOT NULL COMMENT 'End of the slot from which the forecast was made.',
  `horizon` STRING NOT NULL COMMENT '5m or 1h.',
  `target_at` TIMESTAMP NOT NULL COMMENT 'window_end + horizon.',
  `price` DOUBLE NOT NULL COMMENT 'price(t) the forecast starts from. [USD]',
  `predicted_return` DOUBLE NOT NULL COMMENT 'Forecast of the log return. [log return]',
  `predicted_price` DOUBLE NOT NULL COMMENT 'price x exp(predicted_return). [USD]',
  `lower_90` DOUBLE NOT NULL COMMENT '5 % quantile of the price. [USD]',
  `upper_90` DOUBLE NOT NULL COMMENT '95 % quantile of the price. [USD]',
  `median` DOUBLE COMMENT 'Median of the price; null in rows of the first version. [USD]',
  `tracked_lower` DOUBLE COMMENT 'Log factor by which tracking has widened the lower half of the interval since it was calibrated; null in rows of the first version. [log ratio]',
  `tracked_upper` DOUBLE COMMENT 'The same of the upper half. [log ratio]',
  `coverage_7d` DOUBLE COMMENT 'Share of outcomes that intervals of this kind covered for this coin and horizon over the 7 days before the version\'s cut-off, none of which they had seen; null = unknown, see null_reason. [ratio]',
  `coverage_28d` DOUBLE COMMENT 'The same over 28 days. [ratio]',
  `skill_verdict` STRING COMMENT 'Of predicted_price: skill, no skill, or not evaluated; null in rows of the first version.',
  `null_reason` STRING COMMENT 'Why a coverage is null; null = none is, or a row of the first version.',
  `model_name` STRING NOT NULL COMMENT 'Registered model.',
  `model_version` STRING NOT NULL COMMENT 'Model version used.',
  `mode` STRING NOT NULL COMMENT 'live if written before target_at, else backfill.',
  `predicted_at` TIMESTAMP NOT NULL COMMENT 'When the forecast was written.',
  `day` DATE NOT NULL COMMENT 'UTC day of `hour`; the Delta partition.',
  `hour` TIMESTAMP NOT NULL COMMENT 'Hour of the slot\'s start.',
  `chain_seq` BIGINT COMMENT 'Position of the row in its hash chain, from 1, in write order; null for rows written before chains were introduced.',
  `chain_previous` STRING COMMENT 'Hash of the previous row in the chain, zeros for the first; null like chain_seq.',
  `chain_commit` BIGINT COMMENT 'Number of the commit that wrote the row; the newest equals the table\'s transaction ledger/<table>. Null like chain_seq.',
  `chain_commit_hash` STRING COMMENT 'Hash of all rows of that commit; null like chain_seq.'
)
USING DELTA
PARTITIONED BY (`day`)
COMMENT 'Insert-only forecast ledger; the rows of a coin, horizon and model form a hash chain. Live forecasts were written before their target time.'
TBLPROPERTIES ('delta.isolationLevel' = 'Serializable', 'delta.checkpointInterval' = '10', 'delta.enableDeletionVectors' = 'false', 'delta.logRetentionDuration' = 'interval 30 days', 'delta.deletedFileRetentionDuration' = 'interval 7 days');

CREATE TABLE IF NOT EXISTS `crypto_analytics`.`gold`.`prediction_accuracy` (
  `day` DATE NOT NULL COMMENT 'UTC day of the target.',
  `day_start` TIMESTAMP NOT NULL COMMENT 'Start of `day`.',
  `coin_id` STRING NOT NULL COMMENT 'Coin.',
  `horizon` STRING NOT NULL COMMENT '5m or 1h.',
  `model_name` STRING NOT NULL COMMENT 'Registered model.',
  `model_version` STRING NOT NULL COMMENT 'Version.',
  `mode` STRING NOT NULL COMMENT 'live or backfill; only live counts as skill.',
  `forecasts` BIGINT NOT NULL COMMENT 'Forecasts with a known outcome.',
  `without_outcome` BIGINT NOT NULL COMMENT 'Forecasts whose outcome is unknown (no price at the target).',
  `mae_pct` DOUBLE COMMENT 'Mean absolute error of the log return x 100. [percent]',
  `rmse_pct` DOUBLE COMMENT 'Root mean squared error x 100. [percent]',
  `skill` DOUBLE COMMENT '1 - MSE / MSE of persistence; null without outcomes. [ratio]',
  `direction_hit` DOUBLE COMMENT 'Share of correct signs among non-zero forecasts and outcomes; null without any. [ratio]',
  `coverage_90` DOUBLE COMMENT 'Share of outcomes within the interval. [ratio]',
  `winkler_pct` DOUBLE COMMENT 'Mean interval score: width plus 20 x the miss, over the price x 100; lower is better. Null without outcomes, and in rows of the first version. [percent]',
  `width_pct` DOUBLE COMMENT 'Mean width of the interval over the price x 100; null as winkler_pct. [percent]',
  `below_lower` DOUBLE COMMENT 'Share of outcomes below the interval; 0.05 is promised. Null as winkler_pct. [ratio]',
  `below_median` DOUBLE COMMENT 'Share of outcomes below the median, of forecasts that have one; 0.5 is promised. [ratio]',
  `below_upper` DOUBLE COMMENT 'Share of outcomes up to the interval\'s upper end; 0.95 is promised. Null as winkler_pct. [ratio]'
)
USING DELTA
PARTITIONED BY (`day`)
COMMENT 'Forecasts scored against outcomes, per day, coin, horizon, model version and mode.'
TBLPROPERTIES ('delta.isolationLevel' = 'Serializable', 'delta.checkpointInterval' = '10', 'delta.enableDeletionVectors' = 'false', 'delta.logRetentionDuration' = 'interval 30 days', 'delta.deletedFileRetentionDuration' = 'interval 7 days');

CREATE TABLE IF NOT EXISTS `crypto_analytics`.`gold`.`volatility_forecasts` (
  `coin_id` STRING NOT NULL COMMENT 'Coin.',
  `window_end` TIMESTAMP NOT NULL COMMENT 'End of the slot from which the forecast was made.',
  `horizon` STRING NOT NULL COMMENT '1h or 24h.',
  `target_at` TIMESTAMP NOT NULL COMMENT 'window_end + horizon.',
  `volatility_pct` DOUBLE NOT NULL COMMENT 'Forecast: 100 x root of the sum of squared 5-minute log returns from window_end to target_at. [percent]',
  `ewma_pct` DOUBLE NOT NULL COMMENT 'The same if squared returns, of 6 own sigmas at most, go on as on average lately: exponential weights over 7 days that halve in twice the horizon. [percent]',
  `last_value_pct` DOUBLE COMMENT 'The same if the horizon before window_end repeats itself: 100 x rv1h or rv24h; null where that is unknown. [percent]',
  `model_name` STRING NOT NULL COMMENT 'Registered model.',
  `model_version` STRING NOT NULL COMMENT 'Model version used.',
  `mode` STRING NOT NULL COMMENT 'live if written before target_at, else backfill.',
  `predicted_at` TIMESTAMP NOT NULL COMMENT 'When the forecast was written.',
  `day` DATE NOT NULL COMMENT 'UTC day of `hour`; the Delta partition.',
  `hour` TIMESTAMP NOT NULL COMMENT 'Hour of the slot\'s start.',
  `chain_seq` BIGINT COMMENT 'Position of the row in its hash chain, from 1, in write order; null for rows written before chains were introduced.',
  `chain_previous` STRING COMMENT 'Hash of the previous row in the chain, zeros for the first; null like chain_seq.',
  `chain_commit` BIGINT COMMENT 'Number of the commit that wrote the row; the newest equals the table\'s transaction ledger/<table>. Null like chain_seq.',
  `chain_commit_hash` STRING COMMENT 'Hash of all rows of that commit; null like chain_seq.'
)
USING DELTA
PARTITIONED BY (`day`)
COMMENT 'Insert-only ledger of volatility forecasts: 1 h ahead from every slot, 24 h ahead from each full hour. The rows of a coin, horizon and model form a hash chain. Volatility is the root of the realised variance, the sum of squared 5-minute log returns over the horizon; it is not annualised.'
TBLPROPERTIES ('delta.isolationLevel' = 'Serializable', 'delta.checkpointInterval' = '10', 'delta.enableDeletionVectors' = 'false', 'delta.logRetentionDuration' = 'interval 30 days', 'delta.deletedFileRetentionDuration' = 'interval 7 days');

CREATE TABLE IF NOT EXISTS `crypto_analytics`.`gold`.`volatility_accuracy` (
  `day` DATE NOT NULL COMMENT 'UTC day of the target.',
  `day_start` TIMESTAMP NOT NULL COMMENT 'Start of `day`.',
  `coin_id` STRING NOT NULL COMMENT 'Coin.',
  `horizon` STRING NOT NULL COMMENT '1h or 24h.',
  `model_name` STRING NOT NULL COMMENT 'Registered model.',
  `model_version` STRING NOT NULL COMMENT 'Version.',
  `mode` STRING NOT NULL COMMENT 'live or backfill; only live counts as skill.',
  `forecasts` BIGINT NOT NULL COMMENT 'Forecasts with a known outcome: rv1h or rv24h of the features at the target.',
  `without_outcome` BIGINT NOT NULL COMMENT 'Forecasts whose outcome is unknown (no or too few returns in the horizon).',
  `qlike` DOUBLE COMMENT 'Mean QLIKE of the forecasts; null without outcomes.',
  `qlike_ewma` DOUBLE COMMENT 'Of ewma_pct; null as qlike.',
  `qlike_last_value` DOUBLE COMMENT 'Of last_value_pct, over the forecasts that have one; null without any.',
  `qlike_ratio` DOUBLE COMMENT 'qlike over the lower of qlike_ewma and qlike_last_value; below 1, the model is better than both. Null without outcomes. [ratio]',
  `volatility_pct` DOUBLE COMMENT 'Mean forecast, over those with an outcome. [percent]',
  `outcome_pct` DOUBLE COMMENT 'Mean realised volatility. [percent]'
)
USING DELTA
PARTITIONED BY (`day`)
COMMENT 'Volatility forecasts scored against the realised volatility of their horizon, per day, coin, horizon, model version and mode. Loss: QLIKE of the variances, x - ln x - 1 with x = outcome / forecast; 0 is perfect, less is better.'
TBLPROPERTIES ('delta.isolationLevel' = 'Serializable', 'delta.checkpointInterval' = '10', 'delta.enableDeletionVectors' = 'false', 'delta.logRetentionDuration' = 'interval 30 days', 'delta.deletedFileRetentionDuration' = 'interval 7 days');

CREATE TABLE IF NOT EXISTS `crypto_analytics`.`ml`.`promotions` (
  `model` STRING NOT NULL COMMENT 'anomaly, price_5m, price_1h, volatility_1h or volatility_24h.',
  `version` STRING NOT NULL COMMENT 'Registry version; v0 = baseline.',
  `algorithm` STRING NOT NULL COMMENT 'Algorithm of the version.',
  `cutoff` TIMESTAMP NOT NULL COMMENT 'Training used no later data.',
  `effective_from` TIMESTAMP NOT NULL COMMENT 'Start of service if promoted.',
  `decision` STRING NOT NULL COMMENT 'promoted or rejected by the gate of a training. By a person: promoted_by_hand, which the next version that a training promotes replaces, or rolled_back, which none does.',
  `provisional` BOOLEAN NOT NULL COMMENT 'Calibrated on fewer than 28 days.',
  `why` STRING NOT NULL COMMENT 'Reason, with the figures compared.',
  `metrics` STRING NOT NULL COMMENT 'JSON of every metric compared.',
  `artifact_uri` STRING NOT NULL COMMENT 'Folder of the model files, relative to the home; absolute on a volume.',
  `artifact_sha256` STRING NOT NULL COMMENT 'Content hash of the artifact.',
  `content_hash` STRING NOT NULL COMMENT 'Hash of the learnt parameters; equal data and code give an equal hash.',
  `run_id` STRING NOT NULL COMMENT 'MLflow run.',
  `decided_at` TIMESTAMP NOT NULL COMMENT 'When the decision was made.',
  `chain_seq` BIGINT COMMENT 'Position of the row in its hash chain, from 1, in write order; null for rows written before chains were introduced.',
  `chain_previous` STRING COMMENT 'Hash of the previous row in the chain, zeros for the first; null like chain_seq.',
  `chain_commit` BIGINT COMMENT 'Number of the commit that wrote the row; the newest equals the table\'s transaction ledger/<table>. Null like chain_seq.',
  `chain_commit_hash` STRING COMMENT 'Hash of all rows of that commit; null like chain_seq.'
)
USING DELTA
COMMENT 'Promotion decisions on model versions. Scoring uses the version effective at the scored hour; the registry alias is derived from this table. Insert-only; the rows of a model form a hash chain.'
TBLPROPERTIES ('delta.isolationLevel' = 'Serializable', 'delta.checkpointInterval' = '10', 'delta.enableDeletionVectors' = 'false', 'delta.logRetentionDuration' = 'interval 30 days', 'delta.deletedFileRetentionDuration' = 'interval 7 days');

CREATE TABLE IF NOT EXISTS `crypto_analytics`.`ops`.`polls` (
  `topic` STRING NOT NULL COMMENT 'Kafka topic.',
  `topic_id` STRING NOT NULL COMMENT 'Incarnation of the topic: a re-created topic gets a new id.',
  `partition` INT NOT NULL COMMENT 'Kafka partition.',
  `offset` BIGINT NOT NULL COMMENT 'Kafka offset; first missing offset if kind = gap.',
  `kafka_timestamp` TIMESTAMP COMMENT 'Broker timestamp: when the record became available. Null for a gap.',
  `message_key` STRING COMMENT 'Message key; coin_id for prices.',
  `raw_json` STRING COMMENT 'Unmodified record value; null if it is not UTF-8 text.',
  `raw_bytes` BINARY COMMENT 'Record value if it is not UTF-8 text, else null.',
  `headers` STRING COMMENT 'Record headers as a JSON object with sorted keys.',
  `arrival_hour` TIMESTAMP NOT NULL COMMENT 'Start of the hour whose offset range contains the record.',
  `kind` STRING NOT NULL COMMENT 'record, or gap for offsets lost to retention and accepted as lost.',
  `range_start` BIGINT NOT NULL COMMENT 'First offset of the commit\'s range.',
  `range_end` BIGINT NOT NULL COMMENT 'End (exclusive) of the commit\'s range.',
  `seq` BIGINT NOT NULL COMMENT 'Sequence number of the commit within its topic and hour, from 1.',
  `batch_id` STRING NOT NULL COMMENT 'Identifier of the write.',
  `bronze_ingested_at` TIMESTAMP NOT NULL COMMENT 'When the record was written to this table.',
  `poll_id` STRING COMMENT 'Poll; null if the record is unreadable.',
  `started_at` TIMESTAMP COMMENT 'Start of the request.',
  `finished_at` TIMESTAMP COMMENT 'End of the request.',
  `source` STRING COMMENT 'Data mode.',
  `outcome` STRING COMMENT 'ok, or the named failure.',
  `http_status` INT COMMENT 'HTTP status; null without a reply.',
  `detail` STRING COMMENT 'Cause of a failure.',
  `coins_asked` INT COMMENT 'Coins requested.',
  `coins_returned` INT COMMENT 'Coins in the reply.',
  `coins_unchanged` INT COMMENT 'Coins whose quote had already been sent.',
  `coins_missing` ARRAY<STRING> COMMENT 'Coins requested but not returned.',
  `age_s` DOUBLE COMMENT 'Age of the reply in a cache. [seconds]',
  `latency_ms` DOUBLE COMMENT 'Time to the complete reply. [milliseconds]',
  `cadence_s` DOUBLE COMMENT 'Effective poll interval. [seconds]',
  `credits_used` INT COMMENT 'Credits used by the poll.',
  `credits_left` INT COMMENT 'Credits left this month.',
  `delivered` INT COMMENT 'Messages confirmed by Kafka.',
  `coins_absent` ARRAY<STRING> COMMENT 'Coins missing from at least three consecutive replies; null before version 2.',
  `problems` ARRAY<STRING> COMMENT 'Coins with unusable quotes, with reasons; null before version 2.',
  `nulled` ARRAY<STRING> COMMENT 'Quote fields set to null because their number is out of range; null before version 2.',
  `quote_age_s` DOUBLE COMMENT 'Age of the newest quote at the end of the poll; null without one. [seconds]'
)
USING DELTA
PARTITIONED BY (`arrival_hour`)
COMMENT 'One row per poll of the source: outcome, missing coins, cadence, credits.'
TBLPROPERTIES ('delta.isolationLevel' = 'Serializable', 'delta.checkpointInterval' = '10', 'delta.enableDeletionVectors' = 'false', 'delta.dataSkippingStatsColumns' = 'partition,offset,kafka_timestamp,range_start,range_end', 'delta.logRetentionDuration' = 'interval 30 days', 'delta.deletedFileRetentionDuration' = 'interval 7 days');

CREATE TABLE IF NOT EXISTS `crypto_analytics`.`ops`.`pipeline_metrics` (
  `metric` STRING NOT NULL COMMENT 'messages_produced, processing_latency_ms_p50, processing_latency_ms_p99, dedup_rate, quarantine_rate, model_inference_latency_ms, polls_ok_rate.',
  `value` DOUBLE COMMENT 'Value; null = no data in the hour. Latencies run from the arrival at the broker (where that is virtual, from the header sent_at) to the write to Bronze; inference is one call of the model.',
  `unit` STRING NOT NULL COMMENT 'Unit.',
  `measured_over` BIGINT NOT NULL COMMENT 'Records that the value was computed from.',
  `day` DATE NOT NULL COMMENT 'UTC day of `hour`; the Delta partition.',
  `hour` TIMESTAMP NOT NULL COMMENT 'Arrival hour.'
)
USING DELTA
PARTITIONED BY (`day`)
COMMENT 'Pipeline metrics by arrival hour.'
TBLPROPERTIES ('delta.isolationLevel' = 'Serializable', 'delta.checkpointInterval' = '10', 'delta.enableDeletionVectors' = 'false', 'delta.logRetentionDuration' = 'interval 30 days', 'delta.deletedFileRetentionDuration' = 'interval 7 days');

CREATE TABLE IF NOT EXISTS `crypto_analytics`.`ops`.`alerts` (
  `alert_id` STRING NOT NULL COMMENT 'Idempotency key: hash of cause, partition, state and time of the transition; of a market alert the hash of rule, coin and slot.',
  `cause` STRING NOT NULL COMMENT 'Subject of the alert (asset and check, a named condition, or rule and coin).',
  `state` STRING NOT NULL COMMENT 'firing or resolved.',
  `severity` STRING NOT NULL COMMENT 'error or warn.',
  `asset` STRING COMMENT 'Asset key; null for a condition of the whole pipeline.',
  `check_name` STRING COMMENT 'Check; null for a condition, a run and a rule.',
  `partition_key` STRING COMMENT 'Partition; null if not partitioned.',
  `summary` STRING NOT NULL COMMENT 'Finding and remedy.',
  `at` TIMESTAMP NOT NULL COMMENT 'When the transition was detected; of a market alert the end of its slot.',
  `delivered_at` TIMESTAMP COMMENT 'When the last of its channels accepted it; null = no channel, or not yet delivered.',
  `attempts` INT NOT NULL COMMENT 'Delivery attempts.',
  `rule` STRING COMMENT 'Rule of a market alert; null for the pipeline.',
  `coin_id` STRING COMMENT 'Coin of a market alert; null if its rule is about no single coin, and for the pipeline.',
  `value` DOUBLE COMMENT 'What the rule\'s `value` came to in the slot; null without one, and once resolved.'
)
USING DELTA
COMMENT 'All alerts and recoveries, of the pipeline and of the market: transitions only, one per cause. An alert that fires is raised again, as another row, when its check fails further rules.'
TBLPROPERTIES ('delta.isolationLevel' = 'Serializable', 'delta.checkpointInterval' = '10', 'delta.enableDeletionVectors' = 'false', 'delta.logRetentionDuration' = 'interval 30 days', 'delta.deletedFileRetentionDuration' = 'interval 7 days');
