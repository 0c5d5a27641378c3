"""The operations platform for a crypto trading bot: it watches, decides, acts and tells."""
