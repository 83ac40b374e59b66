"""``make demo``: the whole main job on loopback, from an empty folder to a report."""
