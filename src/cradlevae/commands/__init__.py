"""What the command line does: a function for each command, whose signature is the command's options."""
