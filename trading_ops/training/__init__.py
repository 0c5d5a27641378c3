"""Models that say whether the price rises within the next hour: trained, judged, promoted, rolled back."""
