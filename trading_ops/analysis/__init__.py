"""Many symbols at once: which of them look worth buying or selling right now?"""
