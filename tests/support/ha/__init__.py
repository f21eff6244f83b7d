"""What the tests of highly available servers share: hosts, clusters, load and measurements."""
