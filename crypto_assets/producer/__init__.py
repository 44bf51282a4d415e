"""The poll loop: source to log, within the budget."""
