"""Reading times: tables of times, predictors from models, and their regression."""
