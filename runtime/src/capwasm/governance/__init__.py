"""What is said of a policy as a whole: what is unwise in it, what it means to developers, its tests."""
