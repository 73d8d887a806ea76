"""Who may: accounts, keys, logins, and the log of who did what."""
