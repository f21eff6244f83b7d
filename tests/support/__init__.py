"""What tests share: private servers, a clock that tests move, and small builders of data."""
