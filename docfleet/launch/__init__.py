"""VLM servers of this machine's own: MinerU's server command, one for each device, looked after.

    main process -> companion -> launcher process -> guard (leads a group, writes the log) -> MinerU's server -> engine

The main process plans (`planning`): which engine, which devices, which ports. The launcher process keeps them running
(`server`) and tells of them in a file (`docfleet.vlm.local`); it outlives the API process, since a model takes minutes
to load. `python -m docfleet.launch` is the same for a machine that does nothing else.
"""
