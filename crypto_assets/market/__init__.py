"""Pure market domain: coins, replies, credits. No I/O, no clock, no Dagster."""
