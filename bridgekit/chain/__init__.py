"""The nine links between application startup and the user's socket. Each module's name begins with its link."""
