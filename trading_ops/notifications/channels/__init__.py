"""One file for each channel an alert can be delivered to."""
