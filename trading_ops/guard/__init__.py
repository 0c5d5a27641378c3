"""Stop a strategy that bleeds."""
