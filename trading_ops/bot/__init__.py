"""The bot we watch: one small protocol, and the records that cross it."""
