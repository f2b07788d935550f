"""The pool of VLM servers: one small process that every worker's requests go through, and its keeper.

A worker's MinerU client knows one address, the router's, on loopback. Behind it each request is sent to the server
that will answer soonest; limits, breakers and retries are kept in one place, and keys never reach a worker.

    worker (MinerU's client) -> app -> router -> pool (who is next) -> upstream -> VLM server
    API process: keeper, which starts the router's process and tells it which servers there are
"""
