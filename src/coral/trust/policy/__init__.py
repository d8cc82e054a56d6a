"""Who may do what, as Cedar policies: reading, checking and asking them. Knows no wire and no colony."""
