/* The page of a comparison has no charts: theme and copy buttons only. */
kv.start();
