"""What a node keeps on disk: WAL segments, timeline history files, the control file, slots."""
