"""The typed core of Model Trainer and its worker."""
