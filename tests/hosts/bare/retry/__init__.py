"""What the command needs of it: calling something again after certain errors."""
