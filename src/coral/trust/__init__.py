"""Who is who, and what proves it: certificates, tokens, signatures. Files and cryptography; no network, no database."""
