"""Between "somebody published it" and "this core may load it": what is installed, and by whose word."""
