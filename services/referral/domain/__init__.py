"""The referral rules, pure: facts in `facts`, the state in `roster`, the deciding in `decide`."""
