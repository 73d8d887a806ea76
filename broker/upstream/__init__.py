"""All talk with providers: the lean HTTP client, the OpenAI and KServe wire formats, the probes.

Only this room opens connections to providers; every foreign error becomes an `Outcome` here.
"""
