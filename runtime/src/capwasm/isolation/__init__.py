"""Plugins in processes of their own: the fork server, the processes, the broker that serves them."""
