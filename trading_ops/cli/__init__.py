"""What can be done from the terminal? One page a subject of the `trading-ops` command."""
