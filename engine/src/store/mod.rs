//! KEEP: RocksDB. Records, change history and marks; one synced batch makes an epoch visible.
