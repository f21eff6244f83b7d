"""The only SQL over users and messages. Each function is one statement, or one transaction, and says which."""
