"""The landing transport: records as JSON lines in folders by date and hour, in place of Kafka."""
