"""From raw kernel records to decoded columns, in batches: numpy in, Arrow out, no Python object per event."""
