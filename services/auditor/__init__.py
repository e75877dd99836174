"""The auditor's side: writing a program's log into a bundle that can be carried away, and verifying one without the server's word."""
