"""What a process does about itself: it lives, listens, is late, fails, and leaves."""
