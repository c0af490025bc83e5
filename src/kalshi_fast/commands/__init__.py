"""The commands of the command line, each a few lines from its flags to the module that does the work."""
