"""Routes by subject. Each parses its parameters, cuts held rows and answers; nothing is computed here."""
