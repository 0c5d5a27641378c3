"""Does the guard pay? Its rules on past bars, with every stop beside what would have come without it."""
