"""A bot to practise on."""
