"""All of the SQL, one file for each thing stored; nothing here commits."""
