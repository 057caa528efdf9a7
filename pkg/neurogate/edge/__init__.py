"""Who may call, how much, and when: keys, limits, admission. No HTTP and no gRPC: both listeners ask the same edge."""
