"""What other servers run, in environments of their own; nothing here is imported by stnkit."""
