complete -c rapidctl -n 'not __fish_seen_subcommand_from top run status stats requests partition policy profile events drain reload wait version completion bench record replay export check context hosts config doctor schema keys' -s h
complete -c rapidctl -n 'not __fish_seen_subcommand_from top run status stats requests partition policy profile events drain reload wait version completion bench record replay export check context hosts config doctor schema keys' -l help
complete -c rapidctl -n 'not __fish_seen_subcommand_from top run status stats requests partition policy profile events drain reload wait version completion bench record replay export check context hosts config doctor schema keys' -l endpoint
complete -c rapidctl -n 'not __fish_seen_subcommand_from top run status stats requests partition policy profile events drain reload wait version completion bench record replay export check context hosts config doctor schema keys' -s c
complete -c rapidctl -n 'not __fish_seen_subcommand_from top run status stats requests partition policy profile events drain reload wait version completion bench record replay export check context hosts config doctor schema keys' -l context
complete -c rapidctl -n 'not __fish_seen_subcommand_from top run status stats requests partition policy profile events drain reload wait version completion bench record replay export check context hosts config doctor schema keys' -l gpu
complete -c rapidctl -n 'not __fish_seen_subcommand_from top run status stats requests partition policy profile events drain reload wait version completion bench record replay export check context hosts config doctor schema keys' -l timeout
complete -c rapidctl -n 'not __fish_seen_subcommand_from top run status stats requests partition policy profile events drain reload wait version completion bench record replay export check context hosts config doctor schema keys' -l json
complete -c rapidctl -n 'not __fish_seen_subcommand_from top run status stats requests partition policy profile events drain reload wait version completion bench record replay export check context hosts config doctor schema keys' -l color
complete -c rapidctl -n 'not __fish_seen_subcommand_from top run status stats requests partition policy profile events drain reload wait version completion bench record replay export check context hosts config doctor schema keys' -s q
complete -c rapidctl -n 'not __fish_seen_subcommand_from top run status stats requests partition policy profile events drain reload wait version completion bench record replay export check context hosts config doctor schema keys' -l quiet
complete -c rapidctl -n 'not __fish_seen_subcommand_from top run status stats requests partition policy profile events drain reload wait version completion bench record replay export check context hosts config doctor schema keys' -s v
complete -c rapidctl -n 'not __fish_seen_subcommand_from top run status stats requests partition policy profile events drain reload wait version completion bench record replay export check context hosts config doctor schema keys' -l verbose
complete -c rapidctl -n 'not __fish_seen_subcommand_from top run status stats requests partition policy profile events drain reload wait version completion bench record replay export check context hosts config doctor schema keys' -a 'top'
complete -c rapidctl -n 'not __fish_seen_subcommand_from top run status stats requests partition policy profile events drain reload wait version completion bench record replay export check context hosts config doctor schema keys' -a 'run'
complete -c rapidctl -n 'not __fish_seen_subcommand_from top run status stats requests partition policy profile events drain reload wait version completion bench record replay export check context hosts config doctor schema keys' -a 'status'
complete -c rapidctl -n 'not __fish_seen_subcommand_from top run status stats requests partition policy profile events drain reload wait version completion bench record replay export check context hosts config doctor schema keys' -a 'stats'
complete -c rapidctl -n 'not __fish_seen_subcommand_from top run status stats requests partition policy profile events drain reload wait version completion bench record replay export check context hosts config doctor schema keys' -a 'requests'
complete -c rapidctl -n 'not __fish_seen_subcommand_from top run status stats requests partition policy profile events drain reload wait version completion bench record replay export check context hosts config doctor schema keys' -a 'partition'
complete -c rapidctl -n 'not __fish_seen_subcommand_from top run status stats requests partition policy profile events drain reload wait version completion bench record replay export check context hosts config doctor schema keys' -a 'policy'
complete -c rapidctl -n 'not __fish_seen_subcommand_from top run status stats requests partition policy profile events drain reload wait version completion bench record replay export check context hosts config doctor schema keys' -a 'profile'
complete -c rapidctl -n 'not __fish_seen_subcommand_from top run status stats requests partition policy profile events drain reload wait version completion bench record replay export check context hosts config doctor schema keys' -a 'events'
complete -c rapidctl -n 'not __fish_seen_subcommand_from top run status stats requests partition policy profile events drain reload wait version completion bench record replay export check context hosts config doctor schema keys' -a 'drain'
complete -c rapidctl -n 'not __fish_seen_subcommand_from top run status stats requests partition policy profile events drain reload wait version completion bench record replay export check context hosts config doctor schema keys' -a 'reload'
complete -c rapidctl -n 'not __fish_seen_subcommand_from top run status stats requests partition policy profile events drain reload wait version completion bench record replay export check context hosts config doctor schema keys' -a 'wait'
complete -c rapidctl -n 'not __fish_seen_subcommand_from top run status stats requests partition policy profile events drain reload wait version completion bench record replay export check context hosts config doctor schema keys' -a 'version'
complete -c rapidctl -n 'not __fish_seen_subcommand_from top run status stats requests partition policy profile events drain reload wait version completion bench record replay export check context hosts config doctor schema keys' -a 'completion'
complete -c rapidctl -n 'not __fish_seen_subcommand_from top run status stats requests partition policy profile events drain reload wait version completion bench record replay export check context hosts config doctor schema keys' -a 'bench'
complete -c rapidctl -n 'not __fish_seen_subcommand_from top run status stats requests partition policy profile events drain reload wait version completion bench record replay export check context hosts config doctor schema keys' -a 'record'
complete -c rapidctl -n 'not __fish_seen_subcommand_from top run status stats requests partition policy profile events drain reload wait version completion bench record replay export check context hosts config doctor schema keys' -a 'replay'
complete -c rapidctl -n 'not __fish_seen_subcommand_from top run status stats requests partition policy profile events drain reload wait version completion bench record replay export check context hosts config doctor schema keys' -a 'export'
complete -c rapidctl -n 'not __fish_seen_subcommand_from top run status stats requests partition policy profile events drain reload wait version completion bench record replay export check context hosts config doctor schema keys' -a 'check'
complete -c rapidctl -n 'not __fish_seen_subcommand_from top run status stats requests partition policy profile events drain reload wait version completion bench record replay export check context hosts config doctor schema keys' -a 'context'
complete -c rapidctl -n 'not __fish_seen_subcommand_from top run status stats requests partition policy profile events drain reload wait version completion bench record replay export check context hosts config doctor schema keys' -a 'hosts'
complete -c rapidctl -n 'not __fish_seen_subcommand_from top run status stats requests partition policy profile events drain reload wait version completion bench record replay export check context hosts config doctor schema keys' -a 'config'
complete -c rapidctl -n 'not __fish_seen_subcommand_from top run status stats requests partition policy profile events drain reload wait version completion bench record replay export check context hosts config doctor schema keys' -a 'doctor'
complete -c rapidctl -n 'not __fish_seen_subcommand_from top run status stats requests partition policy profile events drain reload wait version completion bench record replay export check context hosts config doctor schema keys' -a 'schema'
complete -c rapidctl -n 'not __fish_seen_subcommand_from top run status stats requests partition policy profile events drain reload wait version completion bench record replay export check context hosts config doctor schema keys' -a 'keys'
complete -c rapidctl -n '__fish_seen_subcommand_from top' -s h
complete -c rapidctl -n '__fish_seen_subcommand_from top' -l help
complete -c rapidctl -n '__fish_seen_subcommand_from top' -l endpoint
complete -c rapidctl -n '__fish_seen_subcommand_from top' -s c
complete -c rapidctl -n '__fish_seen_subcommand_from top' -l context
complete -c rapidctl -n '__fish_seen_subcommand_from top' -l gpu
complete -c rapidctl -n '__fish_seen_subcommand_from top' -l timeout
complete -c rapidctl -n '__fish_seen_subcommand_from top' -l json
complete -c rapidctl -n '__fish_seen_subcommand_from top' -l color
complete -c rapidctl -n '__fish_seen_subcommand_from top' -s q
complete -c rapidctl -n '__fish_seen_subcommand_from top' -l quiet
complete -c rapidctl -n '__fish_seen_subcommand_from top' -s v
complete -c rapidctl -n '__fish_seen_subcommand_from top' -l verbose
complete -c rapidctl -n '__fish_seen_subcommand_from top' -l demo
complete -c rapidctl -n '__fish_seen_subcommand_from top' -l replay
complete -c rapidctl -n '__fish_seen_subcommand_from top' -l control
complete -c rapidctl -n '__fish_seen_subcommand_from top' -l with-text
complete -c rapidctl -n '__fish_seen_subcommand_from top' -l screen
complete -c rapidctl -n '__fish_seen_subcommand_from top' -l no-mouse
complete -c rapidctl -n '__fish_seen_subcommand_from top' -l ascii
complete -c rapidctl -n '__fish_seen_subcommand_from top' -l theme
complete -c rapidctl -n '__fish_seen_subcommand_from run' -s h
complete -c rapidctl -n '__fish_seen_subcommand_from run' -l help
complete -c rapidctl -n '__fish_seen_subcommand_from run' -l endpoint
complete -c rapidctl -n '__fish_seen_subcommand_from run' -s c
complete -c rapidctl -n '__fish_seen_subcommand_from run' -l context
complete -c rapidctl -n '__fish_seen_subcommand_from run' -l gpu
complete -c rapidctl -n '__fish_seen_subcommand_from run' -l timeout
complete -c rapidctl -n '__fish_seen_subcommand_from run' -l json
complete -c rapidctl -n '__fish_seen_subcommand_from run' -l color
complete -c rapidctl -n '__fish_seen_subcommand_from run' -s q
complete -c rapidctl -n '__fish_seen_subcommand_from run' -l quiet
complete -c rapidctl -n '__fish_seen_subcommand_from run' -s v
complete -c rapidctl -n '__fish_seen_subcommand_from run' -l verbose
complete -c rapidctl -n '__fish_seen_subcommand_from run' -l system
complete -c rapidctl -n '__fish_seen_subcommand_from run' -l no-chat
complete -c rapidctl -n '__fish_seen_subcommand_from run' -l max-tokens
complete -c rapidctl -n '__fish_seen_subcommand_from run' -l min-tokens
complete -c rapidctl -n '__fish_seen_subcommand_from run' -l temperature
complete -c rapidctl -n '__fish_seen_subcommand_from run' -l top-k
complete -c rapidctl -n '__fish_seen_subcommand_from run' -l top-p
complete -c rapidctl -n '__fish_seen_subcommand_from run' -l min-p
complete -c rapidctl -n '__fish_seen_subcommand_from run' -l repetition-penalty
complete -c rapidctl -n '__fish_seen_subcommand_from run' -l presence-penalty
complete -c rapidctl -n '__fish_seen_subcommand_from run' -l frequency-penalty
complete -c rapidctl -n '__fish_seen_subcommand_from run' -l seed
complete -c rapidctl -n '__fish_seen_subcommand_from run' -l logprobs
complete -c rapidctl -n '__fish_seen_subcommand_from run' -l stop
complete -c rapidctl -n '__fish_seen_subcommand_from run' -l stop-token-id
complete -c rapidctl -n '__fish_seen_subcommand_from run' -l ignore-eos
complete -c rapidctl -n '__fish_seen_subcommand_from run' -l n
complete -c rapidctl -n '__fish_seen_subcommand_from run' -l priority
complete -c rapidctl -n '__fish_seen_subcommand_from run' -l deadline
complete -c rapidctl -n '__fish_seen_subcommand_from run' -l id
complete -c rapidctl -n '__fish_seen_subcommand_from run' -l slo-class
complete -c rapidctl -n '__fish_seen_subcommand_from run' -l no-resume
complete -c rapidctl -n '__fish_seen_subcommand_from status' -s h
complete -c rapidctl -n '__fish_seen_subcommand_from status' -l help
complete -c rapidctl -n '__fish_seen_subcommand_from status' -l endpoint
complete -c rapidctl -n '__fish_seen_subcommand_from status' -s c
complete -c rapidctl -n '__fish_seen_subcommand_from status' -l context
complete -c rapidctl -n '__fish_seen_subcommand_from status' -l gpu
complete -c rapidctl -n '__fish_seen_subcommand_from status' -l timeout
complete -c rapidctl -n '__fish_seen_subcommand_from status' -l json
complete -c rapidctl -n '__fish_seen_subcommand_from status' -l color
complete -c rapidctl -n '__fish_seen_subcommand_from status' -s q
complete -c rapidctl -n '__fish_seen_subcommand_from status' -l quiet
complete -c rapidctl -n '__fish_seen_subcommand_from status' -s v
complete -c rapidctl -n '__fish_seen_subcommand_from status' -l verbose
complete -c rapidctl -n '__fish_seen_subcommand_from status' -l watch
complete -c rapidctl -n '__fish_seen_subcommand_from status' -s n
complete -c rapidctl -n '__fish_seen_subcommand_from stats' -s h
complete -c rapidctl -n '__fish_seen_subcommand_from stats' -l help
complete -c rapidctl -n '__fish_seen_subcommand_from stats' -l endpoint
complete -c rapidctl -n '__fish_seen_subcommand_from stats' -s c
complete -c rapidctl -n '__fish_seen_subcommand_from stats' -l context
complete -c rapidctl -n '__fish_seen_subcommand_from stats' -l gpu
complete -c rapidctl -n '__fish_seen_subcommand_from stats' -l timeout
complete -c rapidctl -n '__fish_seen_subcommand_from stats' -l json
complete -c rapidctl -n '__fish_seen_subcommand_from stats' -l color
complete -c rapidctl -n '__fish_seen_subcommand_from stats' -s q
complete -c rapidctl -n '__fish_seen_subcommand_from stats' -l quiet
complete -c rapidctl -n '__fish_seen_subcommand_from stats' -s v
complete -c rapidctl -n '__fish_seen_subcommand_from stats' -l verbose
complete -c rapidctl -n '__fish_seen_subcommand_from stats' -a 'latency'
complete -c rapidctl -n '__fish_seen_subcommand_from stats' -a 'units'
complete -c rapidctl -n '__fish_seen_subcommand_from stats' -a 'queue'
complete -c rapidctl -n '__fish_seen_subcommand_from stats' -a 'kv'
complete -c rapidctl -n '__fish_seen_subcommand_from stats' -a 'device'
complete -c rapidctl -n '__fish_seen_subcommand_from stats' -a 'work'
complete -c rapidctl -n '__fish_seen_subcommand_from stats' -l watch
complete -c rapidctl -n '__fish_seen_subcommand_from stats' -s n
complete -c rapidctl -n '__fish_seen_subcommand_from requests; and not __fish_seen_subcommand_from ls show cancel' -s h
complete -c rapidctl -n '__fish_seen_subcommand_from requests; and not __fish_seen_subcommand_from ls show cancel' -l help
complete -c rapidctl -n '__fish_seen_subcommand_from requests; and not __fish_seen_subcommand_from ls show cancel' -l endpoint
complete -c rapidctl -n '__fish_seen_subcommand_from requests; and not __fish_seen_subcommand_from ls show cancel' -s c
complete -c rapidctl -n '__fish_seen_subcommand_from requests; and not __fish_seen_subcommand_from ls show cancel' -l context
complete -c rapidctl -n '__fish_seen_subcommand_from requests; and not __fish_seen_subcommand_from ls show cancel' -l gpu
complete -c rapidctl -n '__fish_seen_subcommand_from requests; and not __fish_seen_subcommand_from ls show cancel' -l timeout
complete -c rapidctl -n '__fish_seen_subcommand_from requests; and not __fish_seen_subcommand_from ls show cancel' -l json
complete -c rapidctl -n '__fish_seen_subcommand_from requests; and not __fish_seen_subcommand_from ls show cancel' -l color
complete -c rapidctl -n '__fish_seen_subcommand_from requests; and not __fish_seen_subcommand_from ls show cancel' -s q
complete -c rapidctl -n '__fish_seen_subcommand_from requests; and not __fish_seen_subcommand_from ls show cancel' -l quiet
complete -c rapidctl -n '__fish_seen_subcommand_from requests; and not __fish_seen_subcommand_from ls show cancel' -s v
complete -c rapidctl -n '__fish_seen_subcommand_from requests; and not __fish_seen_subcommand_from ls show cancel' -l verbose
complete -c rapidctl -n '__fish_seen_subcommand_from requests; and not __fish_seen_subcommand_from ls show cancel' -a 'ls'
complete -c rapidctl -n '__fish_seen_subcommand_from requests; and not __fish_seen_subcommand_from ls show cancel' -a 'show'
complete -c rapidctl -n '__fish_seen_subcommand_from requests; and not __fish_seen_subcommand_from ls show cancel' -a 'cancel'
complete -c rapidctl -n '__fish_seen_subcommand_from requests; and __fish_seen_subcommand_from ls' -s h
complete -c rapidctl -n '__fish_seen_subcommand_from requests; and __fish_seen_subcommand_from ls' -l help
complete -c rapidctl -n '__fish_seen_subcommand_from requests; and __fish_seen_subcommand_from ls' -l endpoint
complete -c rapidctl -n '__fish_seen_subcommand_from requests; and __fish_seen_subcommand_from ls' -s c
complete -c rapidctl -n '__fish_seen_subcommand_from requests; and __fish_seen_subcommand_from ls' -l context
complete -c rapidctl -n '__fish_seen_subcommand_from requests; and __fish_seen_subcommand_from ls' -l gpu
complete -c rapidctl -n '__fish_seen_subcommand_from requests; and __fish_seen_subcommand_from ls' -l timeout
complete -c rapidctl -n '__fish_seen_subcommand_from requests; and __fish_seen_subcommand_from ls' -l json
complete -c rapidctl -n '__fish_seen_subcommand_from requests; and __fish_seen_subcommand_from ls' -l color
complete -c rapidctl -n '__fish_seen_subcommand_from requests; and __fish_seen_subcommand_from ls' -s q
complete -c rapidctl -n '__fish_seen_subcommand_from requests; and __fish_seen_subcommand_from ls' -l quiet
complete -c rapidctl -n '__fish_seen_subcommand_from requests; and __fish_seen_subcommand_from ls' -s v
complete -c rapidctl -n '__fish_seen_subcommand_from requests; and __fish_seen_subcommand_from ls' -l verbose
complete -c rapidctl -n '__fish_seen_subcommand_from requests; and __fish_seen_subcommand_from ls' -l watch
complete -c rapidctl -n '__fish_seen_subcommand_from requests; and __fish_seen_subcommand_from ls' -s n
complete -c rapidctl -n '__fish_seen_subcommand_from requests; and __fish_seen_subcommand_from show' -s h
complete -c rapidctl -n '__fish_seen_subcommand_from requests; and __fish_seen_subcommand_from show' -l help
complete -c rapidctl -n '__fish_seen_subcommand_from requests; and __fish_seen_subcommand_from show' -l endpoint
complete -c rapidctl -n '__fish_seen_subcommand_from requests; and __fish_seen_subcommand_from show' -s c
complete -c rapidctl -n '__fish_seen_subcommand_from requests; and __fish_seen_subcommand_from show' -l context
complete -c rapidctl -n '__fish_seen_subcommand_from requests; and __fish_seen_subcommand_from show' -l gpu
complete -c rapidctl -n '__fish_seen_subcommand_from requests; and __fish_seen_subcommand_from show' -l timeout
complete -c rapidctl -n '__fish_seen_subcommand_from requests; and __fish_seen_subcommand_from show' -l json
complete -c rapidctl -n '__fish_seen_subcommand_from requests; and __fish_seen_subcommand_from show' -l color
complete -c rapidctl -n '__fish_seen_subcommand_from requests; and __fish_seen_subcommand_from show' -s q
complete -c rapidctl -n '__fish_seen_subcommand_from requests; and __fish_seen_subcommand_from show' -l quiet
complete -c rapidctl -n '__fish_seen_subcommand_from requests; and __fish_seen_subcommand_from show' -s v
complete -c rapidctl -n '__fish_seen_subcommand_from requests; and __fish_seen_subcommand_from show' -l verbose
complete -c rapidctl -n '__fish_seen_subcommand_from requests; and __fish_seen_subcommand_from cancel' -s h
complete -c rapidctl -n '__fish_seen_subcommand_from requests; and __fish_seen_subcommand_from cancel' -l help
complete -c rapidctl -n '__fish_seen_subcommand_from requests; and __fish_seen_subcommand_from cancel' -l endpoint
complete -c rapidctl -n '__fish_seen_subcommand_from requests; and __fish_seen_subcommand_from cancel' -s c
complete -c rapidctl -n '__fish_seen_subcommand_from requests; and __fish_seen_subcommand_from cancel' -l context
complete -c rapidctl -n '__fish_seen_subcommand_from requests; and __fish_seen_subcommand_from cancel' -l gpu
complete -c rapidctl -n '__fish_seen_subcommand_from requests; and __fish_seen_subcommand_from cancel' -l timeout
complete -c rapidctl -n '__fish_seen_subcommand_from requests; and __fish_seen_subcommand_from cancel' -l json
complete -c rapidctl -n '__fish_seen_subcommand_from requests; and __fish_seen_subcommand_from cancel' -l color
complete -c rapidctl -n '__fish_seen_subcommand_from requests; and __fish_seen_subcommand_from cancel' -s q
complete -c rapidctl -n '__fish_seen_subcommand_from requests; and __fish_seen_subcommand_from cancel' -l quiet
complete -c rapidctl -n '__fish_seen_subcommand_from requests; and __fish_seen_subcommand_from cancel' -s v
complete -c rapidctl -n '__fish_seen_subcommand_from requests; and __fish_seen_subcommand_from cancel' -l verbose
complete -c rapidctl -n '__fish_seen_subcommand_from partition; and not __fish_seen_subcommand_from show predict set auto undo log' -s h
complete -c rapidctl -n '__fish_seen_subcommand_from partition; and not __fish_seen_subcommand_from show predict set auto undo log' -l help
complete -c rapidctl -n '__fish_seen_subcommand_from partition; and not __fish_seen_subcommand_from show predict set auto undo log' -l endpoint
complete -c rapidctl -n '__fish_seen_subcommand_from partition; and not __fish_seen_subcommand_from show predict set auto undo log' -s c
complete -c rapidctl -n '__fish_seen_subcommand_from partition; and not __fish_seen_subcommand_from show predict set auto undo log' -l context
complete -c rapidctl -n '__fish_seen_subcommand_from partition; and not __fish_seen_subcommand_from show predict set auto undo log' -l gpu
complete -c rapidctl -n '__fish_seen_subcommand_from partition; and not __fish_seen_subcommand_from show predict set auto undo log' -l timeout
complete -c rapidctl -n '__fish_seen_subcommand_from partition; and not __fish_seen_subcommand_from show predict set auto undo log' -l json
complete -c rapidctl -n '__fish_seen_subcommand_from partition; and not __fish_seen_subcommand_from show predict set auto undo log' -l color
complete -c rapidctl -n '__fish_seen_subcommand_from partition; and not __fish_seen_subcommand_from show predict set auto undo log' -s q
complete -c rapidctl -n '__fish_seen_subcommand_from partition; and not __fish_seen_subcommand_from show predict set auto undo log' -l quiet
complete -c rapidctl -n '__fish_seen_subcommand_from partition; and not __fish_seen_subcommand_from show predict set auto undo log' -s v
complete -c rapidctl -n '__fish_seen_subcommand_from partition; and not __fish_seen_subcommand_from show predict set auto undo log' -l verbose
complete -c rapidctl -n '__fish_seen_subcommand_from partition; and not __fish_seen_subcommand_from show predict set auto undo log' -a 'show'
complete -c rapidctl -n '__fish_seen_subcommand_from partition; and not __fish_seen_subcommand_from show predict set auto undo log' -a 'predict'
complete -c rapidctl -n '__fish_seen_subcommand_from partition; and not __fish_seen_subcommand_from show predict set auto undo log' -a 'set'
complete -c rapidctl -n '__fish_seen_subcommand_from partition; and not __fish_seen_subcommand_from show predict set auto undo log' -a 'auto'
complete -c rapidctl -n '__fish_seen_subcommand_from partition; and not __fish_seen_subcommand_from show predict set auto undo log' -a 'undo'
complete -c rapidctl -n '__fish_seen_subcommand_from partition; and not __fish_seen_subcommand_from show predict set auto undo log' -a 'log'
complete -c rapidctl -n '__fish_seen_subcommand_from partition; and __fish_seen_subcommand_from show' -s h
complete -c rapidctl -n '__fish_seen_subcommand_from partition; and __fish_seen_subcommand_from show' -l help
complete -c rapidctl -n '__fish_seen_subcommand_from partition; and __fish_seen_subcommand_from show' -l endpoint
complete -c rapidctl -n '__fish_seen_subcommand_from partition; and __fish_seen_subcommand_from show' -s c
complete -c rapidctl -n '__fish_seen_subcommand_from partition; and __fish_seen_subcommand_from show' -l context
complete -c rapidctl -n '__fish_seen_subcommand_from partition; and __fish_seen_subcommand_from show' -l gpu
complete -c rapidctl -n '__fish_seen_subcommand_from partition; and __fish_seen_subcommand_from show' -l timeout
complete -c rapidctl -n '__fish_seen_subcommand_from partition; and __fish_seen_subcommand_from show' -l json
complete -c rapidctl -n '__fish_seen_subcommand_from partition; and __fish_seen_subcommand_from show' -l color
complete -c rapidctl -n '__fish_seen_subcommand_from partition; and __fish_seen_subcommand_from show' -s q
complete -c rapidctl -n '__fish_seen_subcommand_from partition; and __fish_seen_subcommand_from show' -l quiet
complete -c rapidctl -n '__fish_seen_subcommand_from partition; and __fish_seen_subcommand_from show' -s v
complete -c rapidctl -n '__fish_seen_subcommand_from partition; and __fish_seen_subcommand_from show' -l verbose
complete -c rapidctl -n '__fish_seen_subcommand_from partition; and __fish_seen_subcommand_from show' -l probe
complete -c rapidctl -n '__fish_seen_subcommand_from partition; and __fish_seen_subcommand_from show' -l watch
complete -c rapidctl -n '__fish_seen_subcommand_from partition; and __fish_seen_subcommand_from show' -s n
complete -c rapidctl -n '__fish_seen_subcommand_from partition; and __fish_seen_subcommand_from predict' -s h
complete -c rapidctl -n '__fish_seen_subcommand_from partition; and __fish_seen_subcommand_from predict' -l help
complete -c rapidctl -n '__fish_seen_subcommand_from partition; and __fish_seen_subcommand_from predict' -l endpoint
complete -c rapidctl -n '__fish_seen_subcommand_from partition; and __fish_seen_subcommand_from predict' -s c
complete -c rapidctl -n '__fish_seen_subcommand_from partition; and __fish_seen_subcommand_from predict' -l context
complete -c rapidctl -n '__fish_seen_subcommand_from partition; and __fish_seen_subcommand_from predict' -l gpu
complete -c rapidctl -n '__fish_seen_subcommand_from partition; and __fish_seen_subcommand_from predict' -l timeout
complete -c rapidctl -n '__fish_seen_subcommand_from partition; and __fish_seen_subcommand_from predict' -l json
complete -c rapidctl -n '__fish_seen_subcommand_from partition; and __fish_seen_subcommand_from predict' -l color
complete -c rapidctl -n '__fish_seen_subcommand_from partition; and __fish_seen_subcommand_from predict' -s q
complete -c rapidctl -n '__fish_seen_subcommand_from partition; and __fish_seen_subcommand_from predict' -l quiet
complete -c rapidctl -n '__fish_seen_subcommand_from partition; and __fish_seen_subcommand_from predict' -s v
complete -c rapidctl -n '__fish_seen_subcommand_from partition; and __fish_seen_subcommand_from predict' -l verbose
complete -c rapidctl -n '__fish_seen_subcommand_from partition; and __fish_seen_subcommand_from predict' -l mode
complete -c rapidctl -n '__fish_seen_subcommand_from partition; and __fish_seen_subcommand_from predict' -l decode-units
complete -c rapidctl -n '__fish_seen_subcommand_from partition; and __fish_seen_subcommand_from predict' -l chunk
complete -c rapidctl -n '__fish_seen_subcommand_from partition; and __fish_seen_subcommand_from set' -s h
complete -c rapidctl -n '__fish_seen_subcommand_from partition; and __fish_seen_subcommand_from set' -l help
complete -c rapidctl -n '__fish_seen_subcommand_from partition; and __fish_seen_subcommand_from set' -l endpoint
complete -c rapidctl -n '__fish_seen_subcommand_from partition; and __fish_seen_subcommand_from set' -s c
complete -c rapidctl -n '__fish_seen_subcommand_from partition; and __fish_seen_subcommand_from set' -l context
complete -c rapidctl -n '__fish_seen_subcommand_from partition; and __fish_seen_subcommand_from set' -l gpu
complete -c rapidctl -n '__fish_seen_subcommand_from partition; and __fish_seen_subcommand_from set' -l timeout
complete -c rapidctl -n '__fish_seen_subcommand_from partition; and __fish_seen_subcommand_from set' -l json
complete -c rapidctl -n '__fish_seen_subcommand_from partition; and __fish_seen_subcommand_from set' -l color
complete -c rapidctl -n '__fish_seen_subcommand_from partition; and __fish_seen_subcommand_from set' -s q
complete -c rapidctl -n '__fish_seen_subcommand_from partition; and __fish_seen_subcommand_from set' -l quiet
complete -c rapidctl -n '__fish_seen_subcommand_from partition; and __fish_seen_subcommand_from set' -s v
complete -c rapidctl -n '__fish_seen_subcommand_from partition; and __fish_seen_subcommand_from set' -l verbose
complete -c rapidctl -n '__fish_seen_subcommand_from partition; and __fish_seen_subcommand_from set' -l mode
complete -c rapidctl -n '__fish_seen_subcommand_from partition; and __fish_seen_subcommand_from set' -l decode-units
complete -c rapidctl -n '__fish_seen_subcommand_from partition; and __fish_seen_subcommand_from set' -l chunk
complete -c rapidctl -n '__fish_seen_subcommand_from partition; and __fish_seen_subcommand_from set' -l ttl
complete -c rapidctl -n '__fish_seen_subcommand_from partition; and __fish_seen_subcommand_from set' -l guard
complete -c rapidctl -n '__fish_seen_subcommand_from partition; and __fish_seen_subcommand_from set' -l no-guard
complete -c rapidctl -n '__fish_seen_subcommand_from partition; and __fish_seen_subcommand_from set' -l reason
complete -c rapidctl -n '__fish_seen_subcommand_from partition; and __fish_seen_subcommand_from set' -l if-epoch
complete -c rapidctl -n '__fish_seen_subcommand_from partition; and __fish_seen_subcommand_from set' -l wait
complete -c rapidctl -n '__fish_seen_subcommand_from partition; and __fish_seen_subcommand_from set' -l yes
complete -c rapidctl -n '__fish_seen_subcommand_from partition; and __fish_seen_subcommand_from auto' -s h
complete -c rapidctl -n '__fish_seen_subcommand_from partition; and __fish_seen_subcommand_from auto' -l help
complete -c rapidctl -n '__fish_seen_subcommand_from partition; and __fish_seen_subcommand_from auto' -l endpoint
complete -c rapidctl -n '__fish_seen_subcommand_from partition; and __fish_seen_subcommand_from auto' -s c
complete -c rapidctl -n '__fish_seen_subcommand_from partition; and __fish_seen_subcommand_from auto' -l context
complete -c rapidctl -n '__fish_seen_subcommand_from partition; and __fish_seen_subcommand_from auto' -l gpu
complete -c rapidctl -n '__fish_seen_subcommand_from partition; and __fish_seen_subcommand_from auto' -l timeout
complete -c rapidctl -n '__fish_seen_subcommand_from partition; and __fish_seen_subcommand_from auto' -l json
complete -c rapidctl -n '__fish_seen_subcommand_from partition; and __fish_seen_subcommand_from auto' -l color
complete -c rapidctl -n '__fish_seen_subcommand_from partition; and __fish_seen_subcommand_from auto' -s q
complete -c rapidctl -n '__fish_seen_subcommand_from partition; and __fish_seen_subcommand_from auto' -l quiet
complete -c rapidctl -n '__fish_seen_subcommand_from partition; and __fish_seen_subcommand_from auto' -s v
complete -c rapidctl -n '__fish_seen_subcommand_from partition; and __fish_seen_subcommand_from auto' -l verbose
complete -c rapidctl -n '__fish_seen_subcommand_from partition; and __fish_seen_subcommand_from auto' -l reason
complete -c rapidctl -n '__fish_seen_subcommand_from partition; and __fish_seen_subcommand_from auto' -l if-epoch
complete -c rapidctl -n '__fish_seen_subcommand_from partition; and __fish_seen_subcommand_from auto' -l wait
complete -c rapidctl -n '__fish_seen_subcommand_from partition; and __fish_seen_subcommand_from undo' -s h
complete -c rapidctl -n '__fish_seen_subcommand_from partition; and __fish_seen_subcommand_from undo' -l help
complete -c rapidctl -n '__fish_seen_subcommand_from partition; and __fish_seen_subcommand_from undo' -l endpoint
complete -c rapidctl -n '__fish_seen_subcommand_from partition; and __fish_seen_subcommand_from undo' -s c
complete -c rapidctl -n '__fish_seen_subcommand_from partition; and __fish_seen_subcommand_from undo' -l context
complete -c rapidctl -n '__fish_seen_subcommand_from partition; and __fish_seen_subcommand_from undo' -l gpu
complete -c rapidctl -n '__fish_seen_subcommand_from partition; and __fish_seen_subcommand_from undo' -l timeout
complete -c rapidctl -n '__fish_seen_subcommand_from partition; and __fish_seen_subcommand_from undo' -l json
complete -c rapidctl -n '__fish_seen_subcommand_from partition; and __fish_seen_subcommand_from undo' -l color
complete -c rapidctl -n '__fish_seen_subcommand_from partition; and __fish_seen_subcommand_from undo' -s q
complete -c rapidctl -n '__fish_seen_subcommand_from partition; and __fish_seen_subcommand_from undo' -l quiet
complete -c rapidctl -n '__fish_seen_subcommand_from partition; and __fish_seen_subcommand_from undo' -s v
complete -c rapidctl -n '__fish_seen_subcommand_from partition; and __fish_seen_subcommand_from undo' -l verbose
complete -c rapidctl -n '__fish_seen_subcommand_from partition; and __fish_seen_subcommand_from undo' -l if-epoch
complete -c rapidctl -n '__fish_seen_subcommand_from partition; and __fish_seen_subcommand_from log' -s h
complete -c rapidctl -n '__fish_seen_subcommand_from partition; and __fish_seen_subcommand_from log' -l help
complete -c rapidctl -n '__fish_seen_subcommand_from partition; and __fish_seen_subcommand_from log' -l endpoint
complete -c rapidctl -n '__fish_seen_subcommand_from partition; and __fish_seen_subcommand_from log' -s c
complete -c rapidctl -n '__fish_seen_subcommand_from partition; and __fish_seen_subcommand_from log' -l context
complete -c rapidctl -n '__fish_seen_subcommand_from partition; and __fish_seen_subcommand_from log' -l gpu
complete -c rapidctl -n '__fish_seen_subcommand_from partition; and __fish_seen_subcommand_from log' -l timeout
complete -c rapidctl -n '__fish_seen_subcommand_from partition; and __fish_seen_subcommand_from log' -l json
complete -c rapidctl -n '__fish_seen_subcommand_from partition; and __fish_seen_subcommand_from log' -l color
complete -c rapidctl -n '__fish_seen_subcommand_from partition; and __fish_seen_subcommand_from log' -s q
complete -c rapidctl -n '__fish_seen_subcommand_from partition; and __fish_seen_subcommand_from log' -l quiet
complete -c rapidctl -n '__fish_seen_subcommand_from partition; and __fish_seen_subcommand_from log' -s v
complete -c rapidctl -n '__fish_seen_subcommand_from partition; and __fish_seen_subcommand_from log' -l verbose
complete -c rapidctl -n '__fish_seen_subcommand_from policy; and not __fish_seen_subcommand_from show set' -s h
complete -c rapidctl -n '__fish_seen_subcommand_from policy; and not __fish_seen_subcommand_from show set' -l help
complete -c rapidctl -n '__fish_seen_subcommand_from policy; and not __fish_seen_subcommand_from show set' -l endpoint
complete -c rapidctl -n '__fish_seen_subcommand_from policy; and not __fish_seen_subcommand_from show set' -s c
complete -c rapidctl -n '__fish_seen_subcommand_from policy; and not __fish_seen_subcommand_from show set' -l context
complete -c rapidctl -n '__fish_seen_subcommand_from policy; and not __fish_seen_subcommand_from show set' -l gpu
complete -c rapidctl -n '__fish_seen_subcommand_from policy; and not __fish_seen_subcommand_from show set' -l timeout
complete -c rapidctl -n '__fish_seen_subcommand_from policy; and not __fish_seen_subcommand_from show set' -l json
complete -c rapidctl -n '__fish_seen_subcommand_from policy; and not __fish_seen_subcommand_from show set' -l color
complete -c rapidctl -n '__fish_seen_subcommand_from policy; and not __fish_seen_subcommand_from show set' -s q
complete -c rapidctl -n '__fish_seen_subcommand_from policy; and not __fish_seen_subcommand_from show set' -l quiet
complete -c rapidctl -n '__fish_seen_subcommand_from policy; and not __fish_seen_subcommand_from show set' -s v
complete -c rapidctl -n '__fish_seen_subcommand_from policy; and not __fish_seen_subcommand_from show set' -l verbose
complete -c rapidctl -n '__fish_seen_subcommand_from policy; and not __fish_seen_subcommand_from show set' -a 'show'
complete -c rapidctl -n '__fish_seen_subcommand_from policy; and not __fish_seen_subcommand_from show set' -a 'set'
complete -c rapidctl -n '__fish_seen_subcommand_from policy; and __fish_seen_subcommand_from show' -s h
complete -c rapidctl -n '__fish_seen_subcommand_from policy; and __fish_seen_subcommand_from show' -l help
complete -c rapidctl -n '__fish_seen_subcommand_from policy; and __fish_seen_subcommand_from show' -l endpoint
complete -c rapidctl -n '__fish_seen_subcommand_from policy; and __fish_seen_subcommand_from show' -s c
complete -c rapidctl -n '__fish_seen_subcommand_from policy; and __fish_seen_subcommand_from show' -l context
complete -c rapidctl -n '__fish_seen_subcommand_from policy; and __fish_seen_subcommand_from show' -l gpu
complete -c rapidctl -n '__fish_seen_subcommand_from policy; and __fish_seen_subcommand_from show' -l timeout
complete -c rapidctl -n '__fish_seen_subcommand_from policy; and __fish_seen_subcommand_from show' -l json
complete -c rapidctl -n '__fish_seen_subcommand_from policy; and __fish_seen_subcommand_from show' -l color
complete -c rapidctl -n '__fish_seen_subcommand_from policy; and __fish_seen_subcommand_from show' -s q
complete -c rapidctl -n '__fish_seen_subcommand_from policy; and __fish_seen_subcommand_from show' -l quiet
complete -c rapidctl -n '__fish_seen_subcommand_from policy; and __fish_seen_subcommand_from show' -s v
complete -c rapidctl -n '__fish_seen_subcommand_from policy; and __fish_seen_subcommand_from show' -l verbose
complete -c rapidctl -n '__fish_seen_subcommand_from policy; and __fish_seen_subcommand_from set' -s h
complete -c rapidctl -n '__fish_seen_subcommand_from policy; and __fish_seen_subcommand_from set' -l help
complete -c rapidctl -n '__fish_seen_subcommand_from policy; and __fish_seen_subcommand_from set' -l endpoint
complete -c rapidctl -n '__fish_seen_subcommand_from policy; and __fish_seen_subcommand_from set' -s c
complete -c rapidctl -n '__fish_seen_subcommand_from policy; and __fish_seen_subcommand_from set' -l context
complete -c rapidctl -n '__fish_seen_subcommand_from policy; and __fish_seen_subcommand_from set' -l gpu
complete -c rapidctl -n '__fish_seen_subcommand_from policy; and __fish_seen_subcommand_from set' -l timeout
complete -c rapidctl -n '__fish_seen_subcommand_from policy; and __fish_seen_subcommand_from set' -l json
complete -c rapidctl -n '__fish_seen_subcommand_from policy; and __fish_seen_subcommand_from set' -l color
complete -c rapidctl -n '__fish_seen_subcommand_from policy; and __fish_seen_subcommand_from set' -s q
complete -c rapidctl -n '__fish_seen_subcommand_from policy; and __fish_seen_subcommand_from set' -l quiet
complete -c rapidctl -n '__fish_seen_subcommand_from policy; and __fish_seen_subcommand_from set' -s v
complete -c rapidctl -n '__fish_seen_subcommand_from policy; and __fish_seen_subcommand_from set' -l verbose
complete -c rapidctl -n '__fish_seen_subcommand_from policy; and __fish_seen_subcommand_from set' -l if-epoch
complete -c rapidctl -n '__fish_seen_subcommand_from profile; and not __fish_seen_subcommand_from show' -s h
complete -c rapidctl -n '__fish_seen_subcommand_from profile; and not __fish_seen_subcommand_from show' -l help
complete -c rapidctl -n '__fish_seen_subcommand_from profile; and not __fish_seen_subcommand_from show' -l endpoint
complete -c rapidctl -n '__fish_seen_subcommand_from profile; and not __fish_seen_subcommand_from show' -s c
complete -c rapidctl -n '__fish_seen_subcommand_from profile; and not __fish_seen_subcommand_from show' -l context
complete -c rapidctl -n '__fish_seen_subcommand_from profile; and not __fish_seen_subcommand_from show' -l gpu
complete -c rapidctl -n '__fish_seen_subcommand_from profile; and not __fish_seen_subcommand_from show' -l timeout
complete -c rapidctl -n '__fish_seen_subcommand_from profile; and not __fish_seen_subcommand_from show' -l json
complete -c rapidctl -n '__fish_seen_subcommand_from profile; and not __fish_seen_subcommand_from show' -l color
complete -c rapidctl -n '__fish_seen_subcommand_from profile; and not __fish_seen_subcommand_from show' -s q
complete -c rapidctl -n '__fish_seen_subcommand_from profile; and not __fish_seen_subcommand_from show' -l quiet
complete -c rapidctl -n '__fish_seen_subcommand_from profile; and not __fish_seen_subcommand_from show' -s v
complete -c rapidctl -n '__fish_seen_subcommand_from profile; and not __fish_seen_subcommand_from show' -l verbose
complete -c rapidctl -n '__fish_seen_subcommand_from profile; and not __fish_seen_subcommand_from show' -a 'show'
complete -c rapidctl -n '__fish_seen_subcommand_from profile; and __fish_seen_subcommand_from show' -s h
complete -c rapidctl -n '__fish_seen_subcommand_from profile; and __fish_seen_subcommand_from show' -l help
complete -c rapidctl -n '__fish_seen_subcommand_from profile; and __fish_seen_subcommand_from show' -l endpoint
complete -c rapidctl -n '__fish_seen_subcommand_from profile; and __fish_seen_subcommand_from show' -s c
complete -c rapidctl -n '__fish_seen_subcommand_from profile; and __fish_seen_subcommand_from show' -l gpu
complete -c rapidctl -n '__fish_seen_subcommand_from profile; and __fish_seen_subcommand_from show' -l timeout
complete -c rapidctl -n '__fish_seen_subcommand_from profile; and __fish_seen_subcommand_from show' -l json
complete -c rapidctl -n '__fish_seen_subcommand_from profile; and __fish_seen_subcommand_from show' -l color
complete -c rapidctl -n '__fish_seen_subcommand_from profile; and __fish_seen_subcommand_from show' -s q
complete -c rapidctl -n '__fish_seen_subcommand_from profile; and __fish_seen_subcommand_from show' -l quiet
complete -c rapidctl -n '__fish_seen_subcommand_from profile; and __fish_seen_subcommand_from show' -s v
complete -c rapidctl -n '__fish_seen_subcommand_from profile; and __fish_seen_subcommand_from show' -l verbose
complete -c rapidctl -n '__fish_seen_subcommand_from profile; and __fish_seen_subcommand_from show' -l slo-itl
complete -c rapidctl -n '__fish_seen_subcommand_from profile; and __fish_seen_subcommand_from show' -l context
complete -c rapidctl -n '__fish_seen_subcommand_from events' -s h
complete -c rapidctl -n '__fish_seen_subcommand_from events' -l help
complete -c rapidctl -n '__fish_seen_subcommand_from events' -l endpoint
complete -c rapidctl -n '__fish_seen_subcommand_from events' -s c
complete -c rapidctl -n '__fish_seen_subcommand_from events' -l context
complete -c rapidctl -n '__fish_seen_subcommand_from events' -l gpu
complete -c rapidctl -n '__fish_seen_subcommand_from events' -l timeout
complete -c rapidctl -n '__fish_seen_subcommand_from events' -l json
complete -c rapidctl -n '__fish_seen_subcommand_from events' -l color
complete -c rapidctl -n '__fish_seen_subcommand_from events' -s q
complete -c rapidctl -n '__fish_seen_subcommand_from events' -l quiet
complete -c rapidctl -n '__fish_seen_subcommand_from events' -s v
complete -c rapidctl -n '__fish_seen_subcommand_from events' -l verbose
complete -c rapidctl -n '__fish_seen_subcommand_from events' -s f
complete -c rapidctl -n '__fish_seen_subcommand_from events' -l follow
complete -c rapidctl -n '__fish_seen_subcommand_from events' -l since
complete -c rapidctl -n '__fish_seen_subcommand_from drain' -s h
complete -c rapidctl -n '__fish_seen_subcommand_from drain' -l help
complete -c rapidctl -n '__fish_seen_subcommand_from drain' -l endpoint
complete -c rapidctl -n '__fish_seen_subcommand_from drain' -s c
complete -c rapidctl -n '__fish_seen_subcommand_from drain' -l context
complete -c rapidctl -n '__fish_seen_subcommand_from drain' -l gpu
complete -c rapidctl -n '__fish_seen_subcommand_from drain' -l timeout
complete -c rapidctl -n '__fish_seen_subcommand_from drain' -l json
complete -c rapidctl -n '__fish_seen_subcommand_from drain' -l color
complete -c rapidctl -n '__fish_seen_subcommand_from drain' -s q
complete -c rapidctl -n '__fish_seen_subcommand_from drain' -l quiet
complete -c rapidctl -n '__fish_seen_subcommand_from drain' -s v
complete -c rapidctl -n '__fish_seen_subcommand_from drain' -l verbose
complete -c rapidctl -n '__fish_seen_subcommand_from drain' -l off
complete -c rapidctl -n '__fish_seen_subcommand_from drain' -l wait
complete -c rapidctl -n '__fish_seen_subcommand_from reload' -s h
complete -c rapidctl -n '__fish_seen_subcommand_from reload' -l help
complete -c rapidctl -n '__fish_seen_subcommand_from reload' -l endpoint
complete -c rapidctl -n '__fish_seen_subcommand_from reload' -s c
complete -c rapidctl -n '__fish_seen_subcommand_from reload' -l context
complete -c rapidctl -n '__fish_seen_subcommand_from reload' -l gpu
complete -c rapidctl -n '__fish_seen_subcommand_from reload' -l timeout
complete -c rapidctl -n '__fish_seen_subcommand_from reload' -l json
complete -c rapidctl -n '__fish_seen_subcommand_from reload' -l color
complete -c rapidctl -n '__fish_seen_subcommand_from reload' -s q
complete -c rapidctl -n '__fish_seen_subcommand_from reload' -l quiet
complete -c rapidctl -n '__fish_seen_subcommand_from reload' -s v
complete -c rapidctl -n '__fish_seen_subcommand_from reload' -l verbose
complete -c rapidctl -n '__fish_seen_subcommand_from reload' -l wait
complete -c rapidctl -n '__fish_seen_subcommand_from wait' -s h
complete -c rapidctl -n '__fish_seen_subcommand_from wait' -l help
complete -c rapidctl -n '__fish_seen_subcommand_from wait' -l endpoint
complete -c rapidctl -n '__fish_seen_subcommand_from wait' -s c
complete -c rapidctl -n '__fish_seen_subcommand_from wait' -l context
complete -c rapidctl -n '__fish_seen_subcommand_from wait' -l gpu
complete -c rapidctl -n '__fish_seen_subcommand_from wait' -l timeout
complete -c rapidctl -n '__fish_seen_subcommand_from wait' -l json
complete -c rapidctl -n '__fish_seen_subcommand_from wait' -l color
complete -c rapidctl -n '__fish_seen_subcommand_from wait' -s q
complete -c rapidctl -n '__fish_seen_subcommand_from wait' -l quiet
complete -c rapidctl -n '__fish_seen_subcommand_from wait' -s v
complete -c rapidctl -n '__fish_seen_subcommand_from wait' -l verbose
complete -c rapidctl -n '__fish_seen_subcommand_from version' -s h
complete -c rapidctl -n '__fish_seen_subcommand_from version' -l help
complete -c rapidctl -n '__fish_seen_subcommand_from version' -l endpoint
complete -c rapidctl -n '__fish_seen_subcommand_from version' -s c
complete -c rapidctl -n '__fish_seen_subcommand_from version' -l context
complete -c rapidctl -n '__fish_seen_subcommand_from version' -l gpu
complete -c rapidctl -n '__fish_seen_subcommand_from version' -l timeout
complete -c rapidctl -n '__fish_seen_subcommand_from version' -l json
complete -c rapidctl -n '__fish_seen_subcommand_from version' -l color
complete -c rapidctl -n '__fish_seen_subcommand_from version' -s q
complete -c rapidctl -n '__fish_seen_subcommand_from version' -l quiet
complete -c rapidctl -n '__fish_seen_subcommand_from version' -s v
complete -c rapidctl -n '__fish_seen_subcommand_from version' -l verbose
complete -c rapidctl -n '__fish_seen_subcommand_from completion' -s h
complete -c rapidctl -n '__fish_seen_subcommand_from completion' -l help
complete -c rapidctl -n '__fish_seen_subcommand_from completion' -l endpoint
complete -c rapidctl -n '__fish_seen_subcommand_from completion' -s c
complete -c rapidctl -n '__fish_seen_subcommand_from completion' -l context
complete -c rapidctl -n '__fish_seen_subcommand_from completion' -l gpu
complete -c rapidctl -n '__fish_seen_subcommand_from completion' -l timeout
complete -c rapidctl -n '__fish_seen_subcommand_from completion' -l json
complete -c rapidctl -n '__fish_seen_subcommand_from completion' -l color
complete -c rapidctl -n '__fish_seen_subcommand_from completion' -s q
complete -c rapidctl -n '__fish_seen_subcommand_from completion' -l quiet
complete -c rapidctl -n '__fish_seen_subcommand_from completion' -s v
complete -c rapidctl -n '__fish_seen_subcommand_from completion' -l verbose
complete -c rapidctl -n '__fish_seen_subcommand_from completion' -a 'bash'
complete -c rapidctl -n '__fish_seen_subcommand_from completion' -a 'zsh'
complete -c rapidctl -n '__fish_seen_subcommand_from completion' -a 'fish'
complete -c rapidctl -n '__fish_seen_subcommand_from bench; and not __fish_seen_subcommand_from run goodput compare' -s h
complete -c rapidctl -n '__fish_seen_subcommand_from bench; and not __fish_seen_subcommand_from run goodput compare' -l help
complete -c rapidctl -n '__fish_seen_subcommand_from bench; and not __fish_seen_subcommand_from run goodput compare' -l endpoint
complete -c rapidctl -n '__fish_seen_subcommand_from bench; and not __fish_seen_subcommand_from run goodput compare' -s c
complete -c rapidctl -n '__fish_seen_subcommand_from bench; and not __fish_seen_subcommand_from run goodput compare' -l context
complete -c rapidctl -n '__fish_seen_subcommand_from bench; and not __fish_seen_subcommand_from run goodput compare' -l gpu
complete -c rapidctl -n '__fish_seen_subcommand_from bench; and not __fish_seen_subcommand_from run goodput compare' -l timeout
complete -c rapidctl -n '__fish_seen_subcommand_from bench; and not __fish_seen_subcommand_from run goodput compare' -l json
complete -c rapidctl -n '__fish_seen_subcommand_from bench; and not __fish_seen_subcommand_from run goodput compare' -l color
complete -c rapidctl -n '__fish_seen_subcommand_from bench; and not __fish_seen_subcommand_from run goodput compare' -s q
complete -c rapidctl -n '__fish_seen_subcommand_from bench; and not __fish_seen_subcommand_from run goodput compare' -l quiet
complete -c rapidctl -n '__fish_seen_subcommand_from bench; and not __fish_seen_subcommand_from run goodput compare' -s v
complete -c rapidctl -n '__fish_seen_subcommand_from bench; and not __fish_seen_subcommand_from run goodput compare' -l verbose
complete -c rapidctl -n '__fish_seen_subcommand_from bench; and not __fish_seen_subcommand_from run goodput compare' -a 'run'
complete -c rapidctl -n '__fish_seen_subcommand_from bench; and not __fish_seen_subcommand_from run goodput compare' -a 'goodput'
complete -c rapidctl -n '__fish_seen_subcommand_from bench; and not __fish_seen_subcommand_from run goodput compare' -a 'compare'
complete -c rapidctl -n '__fish_seen_subcommand_from bench; and __fish_seen_subcommand_from run' -s h
complete -c rapidctl -n '__fish_seen_subcommand_from bench; and __fish_seen_subcommand_from run' -l help
complete -c rapidctl -n '__fish_seen_subcommand_from bench; and __fish_seen_subcommand_from run' -l endpoint
complete -c rapidctl -n '__fish_seen_subcommand_from bench; and __fish_seen_subcommand_from run' -s c
complete -c rapidctl -n '__fish_seen_subcommand_from bench; and __fish_seen_subcommand_from run' -l context
complete -c rapidctl -n '__fish_seen_subcommand_from bench; and __fish_seen_subcommand_from run' -l gpu
complete -c rapidctl -n '__fish_seen_subcommand_from bench; and __fish_seen_subcommand_from run' -l timeout
complete -c rapidctl -n '__fish_seen_subcommand_from bench; and __fish_seen_subcommand_from run' -l json
complete -c rapidctl -n '__fish_seen_subcommand_from bench; and __fish_seen_subcommand_from run' -l color
complete -c rapidctl -n '__fish_seen_subcommand_from bench; and __fish_seen_subcommand_from run' -s q
complete -c rapidctl -n '__fish_seen_subcommand_from bench; and __fish_seen_subcommand_from run' -l quiet
complete -c rapidctl -n '__fish_seen_subcommand_from bench; and __fish_seen_subcommand_from run' -s v
complete -c rapidctl -n '__fish_seen_subcommand_from bench; and __fish_seen_subcommand_from run' -l verbose
complete -c rapidctl -n '__fish_seen_subcommand_from bench; and __fish_seen_subcommand_from run' -l shape
complete -c rapidctl -n '__fish_seen_subcommand_from bench; and __fish_seen_subcommand_from run' -l request-rate
complete -c rapidctl -n '__fish_seen_subcommand_from bench; and __fish_seen_subcommand_from run' -l batched
complete -c rapidctl -n '__fish_seen_subcommand_from bench; and __fish_seen_subcommand_from run' -l start
complete -c rapidctl -n '__fish_seen_subcommand_from bench; and __fish_seen_subcommand_from run' -l seconds
complete -c rapidctl -n '__fish_seen_subcommand_from bench; and __fish_seen_subcommand_from run' -l requests
complete -c rapidctl -n '__fish_seen_subcommand_from bench; and __fish_seen_subcommand_from run' -l length-scale
complete -c rapidctl -n '__fish_seen_subcommand_from bench; and __fish_seen_subcommand_from run' -l max-model-len
complete -c rapidctl -n '__fish_seen_subcommand_from bench; and __fish_seen_subcommand_from run' -l over-long
complete -c rapidctl -n '__fish_seen_subcommand_from bench; and __fish_seen_subcommand_from run' -l seed
complete -c rapidctl -n '__fish_seen_subcommand_from bench; and __fish_seen_subcommand_from run' -l salt
complete -c rapidctl -n '__fish_seen_subcommand_from bench; and __fish_seen_subcommand_from run' -l http
complete -c rapidctl -n '__fish_seen_subcommand_from bench; and __fish_seen_subcommand_from run' -l model
complete -c rapidctl -n '__fish_seen_subcommand_from bench; and __fish_seen_subcommand_from run' -l vocab-size
complete -c rapidctl -n '__fish_seen_subcommand_from bench; and __fish_seen_subcommand_from run' -l warmup
complete -c rapidctl -n '__fish_seen_subcommand_from bench; and __fish_seen_subcommand_from run' -l warmup-requests
complete -c rapidctl -n '__fish_seen_subcommand_from bench; and __fish_seen_subcommand_from run' -l drain
complete -c rapidctl -n '__fish_seen_subcommand_from bench; and __fish_seen_subcommand_from run' -l slo-itl
complete -c rapidctl -n '__fish_seen_subcommand_from bench; and __fish_seen_subcommand_from run' -l slo-ttft-floor
complete -c rapidctl -n '__fish_seen_subcommand_from bench; and __fish_seen_subcommand_from run' -l slo-ttft-per-1k
complete -c rapidctl -n '__fish_seen_subcommand_from bench; and __fish_seen_subcommand_from run' -l max-lateness
complete -c rapidctl -n '__fish_seen_subcommand_from bench; and __fish_seen_subcommand_from run' -l out
complete -c rapidctl -n '__fish_seen_subcommand_from bench; and __fish_seen_subcommand_from run' -l picture
complete -c rapidctl -n '__fish_seen_subcommand_from bench; and __fish_seen_subcommand_from run' -l rate-scale
complete -c rapidctl -n '__fish_seen_subcommand_from bench; and __fish_seen_subcommand_from goodput' -s h
complete -c rapidctl -n '__fish_seen_subcommand_from bench; and __fish_seen_subcommand_from goodput' -l help
complete -c rapidctl -n '__fish_seen_subcommand_from bench; and __fish_seen_subcommand_from goodput' -l endpoint
complete -c rapidctl -n '__fish_seen_subcommand_from bench; and __fish_seen_subcommand_from goodput' -s c
complete -c rapidctl -n '__fish_seen_subcommand_from bench; and __fish_seen_subcommand_from goodput' -l context
complete -c rapidctl -n '__fish_seen_subcommand_from bench; and __fish_seen_subcommand_from goodput' -l gpu
complete -c rapidctl -n '__fish_seen_subcommand_from bench; and __fish_seen_subcommand_from goodput' -l timeout
complete -c rapidctl -n '__fish_seen_subcommand_from bench; and __fish_seen_subcommand_from goodput' -l json
complete -c rapidctl -n '__fish_seen_subcommand_from bench; and __fish_seen_subcommand_from goodput' -l color
complete -c rapidctl -n '__fish_seen_subcommand_from bench; and __fish_seen_subcommand_from goodput' -s q
complete -c rapidctl -n '__fish_seen_subcommand_from bench; and __fish_seen_subcommand_from goodput' -l quiet
complete -c rapidctl -n '__fish_seen_subcommand_from bench; and __fish_seen_subcommand_from goodput' -s v
complete -c rapidctl -n '__fish_seen_subcommand_from bench; and __fish_seen_subcommand_from goodput' -l verbose
complete -c rapidctl -n '__fish_seen_subcommand_from bench; and __fish_seen_subcommand_from goodput' -l shape
complete -c rapidctl -n '__fish_seen_subcommand_from bench; and __fish_seen_subcommand_from goodput' -l request-rate
complete -c rapidctl -n '__fish_seen_subcommand_from bench; and __fish_seen_subcommand_from goodput' -l batched
complete -c rapidctl -n '__fish_seen_subcommand_from bench; and __fish_seen_subcommand_from goodput' -l start
complete -c rapidctl -n '__fish_seen_subcommand_from bench; and __fish_seen_subcommand_from goodput' -l seconds
complete -c rapidctl -n '__fish_seen_subcommand_from bench; and __fish_seen_subcommand_from goodput' -l requests
complete -c rapidctl -n '__fish_seen_subcommand_from bench; and __fish_seen_subcommand_from goodput' -l length-scale
complete -c rapidctl -n '__fish_seen_subcommand_from bench; and __fish_seen_subcommand_from goodput' -l max-model-len
complete -c rapidctl -n '__fish_seen_subcommand_from bench; and __fish_seen_subcommand_from goodput' -l over-long
complete -c rapidctl -n '__fish_seen_subcommand_from bench; and __fish_seen_subcommand_from goodput' -l seed
complete -c rapidctl -n '__fish_seen_subcommand_from bench; and __fish_seen_subcommand_from goodput' -l salt
complete -c rapidctl -n '__fish_seen_subcommand_from bench; and __fish_seen_subcommand_from goodput' -l http
complete -c rapidctl -n '__fish_seen_subcommand_from bench; and __fish_seen_subcommand_from goodput' -l model
complete -c rapidctl -n '__fish_seen_subcommand_from bench; and __fish_seen_subcommand_from goodput' -l vocab-size
complete -c rapidctl -n '__fish_seen_subcommand_from bench; and __fish_seen_subcommand_from goodput' -l warmup
complete -c rapidctl -n '__fish_seen_subcommand_from bench; and __fish_seen_subcommand_from goodput' -l warmup-requests
complete -c rapidctl -n '__fish_seen_subcommand_from bench; and __fish_seen_subcommand_from goodput' -l drain
complete -c rapidctl -n '__fish_seen_subcommand_from bench; and __fish_seen_subcommand_from goodput' -l slo-itl
complete -c rapidctl -n '__fish_seen_subcommand_from bench; and __fish_seen_subcommand_from goodput' -l slo-ttft-floor
complete -c rapidctl -n '__fish_seen_subcommand_from bench; and __fish_seen_subcommand_from goodput' -l slo-ttft-per-1k
complete -c rapidctl -n '__fish_seen_subcommand_from bench; and __fish_seen_subcommand_from goodput' -l max-lateness
complete -c rapidctl -n '__fish_seen_subcommand_from bench; and __fish_seen_subcommand_from goodput' -l out
complete -c rapidctl -n '__fish_seen_subcommand_from bench; and __fish_seen_subcommand_from goodput' -l picture
complete -c rapidctl -n '__fish_seen_subcommand_from bench; and __fish_seen_subcommand_from goodput' -l first
complete -c rapidctl -n '__fish_seen_subcommand_from bench; and __fish_seen_subcommand_from goodput' -l max-runs
complete -c rapidctl -n '__fish_seen_subcommand_from bench; and __fish_seen_subcommand_from goodput' -l tolerance
complete -c rapidctl -n '__fish_seen_subcommand_from bench; and __fish_seen_subcommand_from compare' -s h
complete -c rapidctl -n '__fish_seen_subcommand_from bench; and __fish_seen_subcommand_from compare' -l help
complete -c rapidctl -n '__fish_seen_subcommand_from bench; and __fish_seen_subcommand_from compare' -l endpoint
complete -c rapidctl -n '__fish_seen_subcommand_from bench; and __fish_seen_subcommand_from compare' -s c
complete -c rapidctl -n '__fish_seen_subcommand_from bench; and __fish_seen_subcommand_from compare' -l context
complete -c rapidctl -n '__fish_seen_subcommand_from bench; and __fish_seen_subcommand_from compare' -l gpu
complete -c rapidctl -n '__fish_seen_subcommand_from bench; and __fish_seen_subcommand_from compare' -l timeout
complete -c rapidctl -n '__fish_seen_subcommand_from bench; and __fish_seen_subcommand_from compare' -l json
complete -c rapidctl -n '__fish_seen_subcommand_from bench; and __fish_seen_subcommand_from compare' -l color
complete -c rapidctl -n '__fish_seen_subcommand_from bench; and __fish_seen_subcommand_from compare' -s q
complete -c rapidctl -n '__fish_seen_subcommand_from bench; and __fish_seen_subcommand_from compare' -l quiet
complete -c rapidctl -n '__fish_seen_subcommand_from bench; and __fish_seen_subcommand_from compare' -s v
complete -c rapidctl -n '__fish_seen_subcommand_from bench; and __fish_seen_subcommand_from compare' -l verbose
complete -c rapidctl -n '__fish_seen_subcommand_from bench; and __fish_seen_subcommand_from compare' -l shape
complete -c rapidctl -n '__fish_seen_subcommand_from bench; and __fish_seen_subcommand_from compare' -l request-rate
complete -c rapidctl -n '__fish_seen_subcommand_from bench; and __fish_seen_subcommand_from compare' -l batched
complete -c rapidctl -n '__fish_seen_subcommand_from bench; and __fish_seen_subcommand_from compare' -l start
complete -c rapidctl -n '__fish_seen_subcommand_from bench; and __fish_seen_subcommand_from compare' -l seconds
complete -c rapidctl -n '__fish_seen_subcommand_from bench; and __fish_seen_subcommand_from compare' -l requests
complete -c rapidctl -n '__fish_seen_subcommand_from bench; and __fish_seen_subcommand_from compare' -l length-scale
complete -c rapidctl -n '__fish_seen_subcommand_from bench; and __fish_seen_subcommand_from compare' -l max-model-len
complete -c rapidctl -n '__fish_seen_subcommand_from bench; and __fish_seen_subcommand_from compare' -l over-long
complete -c rapidctl -n '__fish_seen_subcommand_from bench; and __fish_seen_subcommand_from compare' -l seed
complete -c rapidctl -n '__fish_seen_subcommand_from bench; and __fish_seen_subcommand_from compare' -l salt
complete -c rapidctl -n '__fish_seen_subcommand_from bench; and __fish_seen_subcommand_from compare' -l http
complete -c rapidctl -n '__fish_seen_subcommand_from bench; and __fish_seen_subcommand_from compare' -l model
complete -c rapidctl -n '__fish_seen_subcommand_from bench; and __fish_seen_subcommand_from compare' -l vocab-size
complete -c rapidctl -n '__fish_seen_subcommand_from bench; and __fish_seen_subcommand_from compare' -l warmup
complete -c rapidctl -n '__fish_seen_subcommand_from bench; and __fish_seen_subcommand_from compare' -l warmup-requests
complete -c rapidctl -n '__fish_seen_subcommand_from bench; and __fish_seen_subcommand_from compare' -l drain
complete -c rapidctl -n '__fish_seen_subcommand_from bench; and __fish_seen_subcommand_from compare' -l slo-itl
complete -c rapidctl -n '__fish_seen_subcommand_from bench; and __fish_seen_subcommand_from compare' -l slo-ttft-floor
complete -c rapidctl -n '__fish_seen_subcommand_from bench; and __fish_seen_subcommand_from compare' -l slo-ttft-per-1k
complete -c rapidctl -n '__fish_seen_subcommand_from bench; and __fish_seen_subcommand_from compare' -l max-lateness
complete -c rapidctl -n '__fish_seen_subcommand_from bench; and __fish_seen_subcommand_from compare' -l out
complete -c rapidctl -n '__fish_seen_subcommand_from bench; and __fish_seen_subcommand_from compare' -l picture
complete -c rapidctl -n '__fish_seen_subcommand_from bench; and __fish_seen_subcommand_from compare' -l first
complete -c rapidctl -n '__fish_seen_subcommand_from bench; and __fish_seen_subcommand_from compare' -l max-runs
complete -c rapidctl -n '__fish_seen_subcommand_from bench; and __fish_seen_subcommand_from compare' -l tolerance
complete -c rapidctl -n '__fish_seen_subcommand_from bench; and __fish_seen_subcommand_from compare' -l policy
complete -c rapidctl -n '__fish_seen_subcommand_from bench; and __fish_seen_subcommand_from compare' -l repeats
complete -c rapidctl -n '__fish_seen_subcommand_from bench; and __fish_seen_subcommand_from compare' -l rate-scale
complete -c rapidctl -n '__fish_seen_subcommand_from bench; and __fish_seen_subcommand_from compare' -l goodput
complete -c rapidctl -n '__fish_seen_subcommand_from record' -s h
complete -c rapidctl -n '__fish_seen_subcommand_from record' -l help
complete -c rapidctl -n '__fish_seen_subcommand_from record' -l endpoint
complete -c rapidctl -n '__fish_seen_subcommand_from record' -s c
complete -c rapidctl -n '__fish_seen_subcommand_from record' -l context
complete -c rapidctl -n '__fish_seen_subcommand_from record' -l gpu
complete -c rapidctl -n '__fish_seen_subcommand_from record' -l timeout
complete -c rapidctl -n '__fish_seen_subcommand_from record' -l json
complete -c rapidctl -n '__fish_seen_subcommand_from record' -l color
complete -c rapidctl -n '__fish_seen_subcommand_from record' -s q
complete -c rapidctl -n '__fish_seen_subcommand_from record' -l quiet
complete -c rapidctl -n '__fish_seen_subcommand_from record' -s v
complete -c rapidctl -n '__fish_seen_subcommand_from record' -l verbose
complete -c rapidctl -n '__fish_seen_subcommand_from record' -s o
complete -c rapidctl -n '__fish_seen_subcommand_from record' -l output
complete -c rapidctl -n '__fish_seen_subcommand_from record' -l for
complete -c rapidctl -n '__fish_seen_subcommand_from record' -l with-text
complete -c rapidctl -n '__fish_seen_subcommand_from record' -l max-tokens
complete -c rapidctl -n '__fish_seen_subcommand_from record' -l csv
complete -c rapidctl -n '__fish_seen_subcommand_from replay' -s h
complete -c rapidctl -n '__fish_seen_subcommand_from replay' -l help
complete -c rapidctl -n '__fish_seen_subcommand_from replay' -l endpoint
complete -c rapidctl -n '__fish_seen_subcommand_from replay' -s c
complete -c rapidctl -n '__fish_seen_subcommand_from replay' -l context
complete -c rapidctl -n '__fish_seen_subcommand_from replay' -l gpu
complete -c rapidctl -n '__fish_seen_subcommand_from replay' -l timeout
complete -c rapidctl -n '__fish_seen_subcommand_from replay' -l json
complete -c rapidctl -n '__fish_seen_subcommand_from replay' -l color
complete -c rapidctl -n '__fish_seen_subcommand_from replay' -s q
complete -c rapidctl -n '__fish_seen_subcommand_from replay' -l quiet
complete -c rapidctl -n '__fish_seen_subcommand_from replay' -s v
complete -c rapidctl -n '__fish_seen_subcommand_from replay' -l verbose
complete -c rapidctl -n '__fish_seen_subcommand_from replay' -l screen
complete -c rapidctl -n '__fish_seen_subcommand_from replay' -l no-mouse
complete -c rapidctl -n '__fish_seen_subcommand_from replay' -l ascii
complete -c rapidctl -n '__fish_seen_subcommand_from replay' -l theme
complete -c rapidctl -n '__fish_seen_subcommand_from export' -s h
complete -c rapidctl -n '__fish_seen_subcommand_from export' -l help
complete -c rapidctl -n '__fish_seen_subcommand_from export' -l endpoint
complete -c rapidctl -n '__fish_seen_subcommand_from export' -s c
complete -c rapidctl -n '__fish_seen_subcommand_from export' -l context
complete -c rapidctl -n '__fish_seen_subcommand_from export' -l gpu
complete -c rapidctl -n '__fish_seen_subcommand_from export' -l timeout
complete -c rapidctl -n '__fish_seen_subcommand_from export' -l json
complete -c rapidctl -n '__fish_seen_subcommand_from export' -l color
complete -c rapidctl -n '__fish_seen_subcommand_from export' -s q
complete -c rapidctl -n '__fish_seen_subcommand_from export' -l quiet
complete -c rapidctl -n '__fish_seen_subcommand_from export' -s v
complete -c rapidctl -n '__fish_seen_subcommand_from export' -l verbose
complete -c rapidctl -n '__fish_seen_subcommand_from export' -l csv
complete -c rapidctl -n '__fish_seen_subcommand_from export' -s o
complete -c rapidctl -n '__fish_seen_subcommand_from export' -l output
complete -c rapidctl -n '__fish_seen_subcommand_from check' -s h
complete -c rapidctl -n '__fish_seen_subcommand_from check' -l help
complete -c rapidctl -n '__fish_seen_subcommand_from check' -l endpoint
complete -c rapidctl -n '__fish_seen_subcommand_from check' -l context
complete -c rapidctl -n '__fish_seen_subcommand_from check' -l gpu
complete -c rapidctl -n '__fish_seen_subcommand_from check' -l timeout
complete -c rapidctl -n '__fish_seen_subcommand_from check' -l json
complete -c rapidctl -n '__fish_seen_subcommand_from check' -l color
complete -c rapidctl -n '__fish_seen_subcommand_from check' -s q
complete -c rapidctl -n '__fish_seen_subcommand_from check' -l quiet
complete -c rapidctl -n '__fish_seen_subcommand_from check' -s v
complete -c rapidctl -n '__fish_seen_subcommand_from check' -l verbose
complete -c rapidctl -n '__fish_seen_subcommand_from check' -a 'latency'
complete -c rapidctl -n '__fish_seen_subcommand_from check' -a 'units'
complete -c rapidctl -n '__fish_seen_subcommand_from check' -a 'queue'
complete -c rapidctl -n '__fish_seen_subcommand_from check' -a 'kv'
complete -c rapidctl -n '__fish_seen_subcommand_from check' -s w
complete -c rapidctl -n '__fish_seen_subcommand_from check' -l warning
complete -c rapidctl -n '__fish_seen_subcommand_from check' -s c
complete -c rapidctl -n '__fish_seen_subcommand_from check' -l critical
complete -c rapidctl -n '__fish_seen_subcommand_from context; and not __fish_seen_subcommand_from ls use add' -s h
complete -c rapidctl -n '__fish_seen_subcommand_from context; and not __fish_seen_subcommand_from ls use add' -l help
complete -c rapidctl -n '__fish_seen_subcommand_from context; and not __fish_seen_subcommand_from ls use add' -l endpoint
complete -c rapidctl -n '__fish_seen_subcommand_from context; and not __fish_seen_subcommand_from ls use add' -s c
complete -c rapidctl -n '__fish_seen_subcommand_from context; and not __fish_seen_subcommand_from ls use add' -l context
complete -c rapidctl -n '__fish_seen_subcommand_from context; and not __fish_seen_subcommand_from ls use add' -l gpu
complete -c rapidctl -n '__fish_seen_subcommand_from context; and not __fish_seen_subcommand_from ls use add' -l timeout
complete -c rapidctl -n '__fish_seen_subcommand_from context; and not __fish_seen_subcommand_from ls use add' -l json
complete -c rapidctl -n '__fish_seen_subcommand_from context; and not __fish_seen_subcommand_from ls use add' -l color
complete -c rapidctl -n '__fish_seen_subcommand_from context; and not __fish_seen_subcommand_from ls use add' -s q
complete -c rapidctl -n '__fish_seen_subcommand_from context; and not __fish_seen_subcommand_from ls use add' -l quiet
complete -c rapidctl -n '__fish_seen_subcommand_from context; and not __fish_seen_subcommand_from ls use add' -s v
complete -c rapidctl -n '__fish_seen_subcommand_from context; and not __fish_seen_subcommand_from ls use add' -l verbose
complete -c rapidctl -n '__fish_seen_subcommand_from context; and not __fish_seen_subcommand_from ls use add' -a 'ls'
complete -c rapidctl -n '__fish_seen_subcommand_from context; and not __fish_seen_subcommand_from ls use add' -a 'use'
complete -c rapidctl -n '__fish_seen_subcommand_from context; and not __fish_seen_subcommand_from ls use add' -a 'add'
complete -c rapidctl -n '__fish_seen_subcommand_from context; and __fish_seen_subcommand_from ls' -s h
complete -c rapidctl -n '__fish_seen_subcommand_from context; and __fish_seen_subcommand_from ls' -l help
complete -c rapidctl -n '__fish_seen_subcommand_from context; and __fish_seen_subcommand_from ls' -l endpoint
complete -c rapidctl -n '__fish_seen_subcommand_from context; and __fish_seen_subcommand_from ls' -s c
complete -c rapidctl -n '__fish_seen_subcommand_from context; and __fish_seen_subcommand_from ls' -l context
complete -c rapidctl -n '__fish_seen_subcommand_from context; and __fish_seen_subcommand_from ls' -l gpu
complete -c rapidctl -n '__fish_seen_subcommand_from context; and __fish_seen_subcommand_from ls' -l timeout
complete -c rapidctl -n '__fish_seen_subcommand_from context; and __fish_seen_subcommand_from ls' -l json
complete -c rapidctl -n '__fish_seen_subcommand_from context; and __fish_seen_subcommand_from ls' -l color
complete -c rapidctl -n '__fish_seen_subcommand_from context; and __fish_seen_subcommand_from ls' -s q
complete -c rapidctl -n '__fish_seen_subcommand_from context; and __fish_seen_subcommand_from ls' -l quiet
complete -c rapidctl -n '__fish_seen_subcommand_from context; and __fish_seen_subcommand_from ls' -s v
complete -c rapidctl -n '__fish_seen_subcommand_from context; and __fish_seen_subcommand_from ls' -l verbose
complete -c rapidctl -n '__fish_seen_subcommand_from context; and __fish_seen_subcommand_from use' -s h
complete -c rapidctl -n '__fish_seen_subcommand_from context; and __fish_seen_subcommand_from use' -l help
complete -c rapidctl -n '__fish_seen_subcommand_from context; and __fish_seen_subcommand_from use' -l endpoint
complete -c rapidctl -n '__fish_seen_subcommand_from context; and __fish_seen_subcommand_from use' -s c
complete -c rapidctl -n '__fish_seen_subcommand_from context; and __fish_seen_subcommand_from use' -l context
complete -c rapidctl -n '__fish_seen_subcommand_from context; and __fish_seen_subcommand_from use' -l gpu
complete -c rapidctl -n '__fish_seen_subcommand_from context; and __fish_seen_subcommand_from use' -l timeout
complete -c rapidctl -n '__fish_seen_subcommand_from context; and __fish_seen_subcommand_from use' -l json
complete -c rapidctl -n '__fish_seen_subcommand_from context; and __fish_seen_subcommand_from use' -l color
complete -c rapidctl -n '__fish_seen_subcommand_from context; and __fish_seen_subcommand_from use' -s q
complete -c rapidctl -n '__fish_seen_subcommand_from context; and __fish_seen_subcommand_from use' -l quiet
complete -c rapidctl -n '__fish_seen_subcommand_from context; and __fish_seen_subcommand_from use' -s v
complete -c rapidctl -n '__fish_seen_subcommand_from context; and __fish_seen_subcommand_from use' -l verbose
complete -c rapidctl -n '__fish_seen_subcommand_from context; and __fish_seen_subcommand_from add' -s h
complete -c rapidctl -n '__fish_seen_subcommand_from context; and __fish_seen_subcommand_from add' -l help
complete -c rapidctl -n '__fish_seen_subcommand_from context; and __fish_seen_subcommand_from add' -l endpoint
complete -c rapidctl -n '__fish_seen_subcommand_from context; and __fish_seen_subcommand_from add' -s c
complete -c rapidctl -n '__fish_seen_subcommand_from context; and __fish_seen_subcommand_from add' -l context
complete -c rapidctl -n '__fish_seen_subcommand_from context; and __fish_seen_subcommand_from add' -l gpu
complete -c rapidctl -n '__fish_seen_subcommand_from context; and __fish_seen_subcommand_from add' -l timeout
complete -c rapidctl -n '__fish_seen_subcommand_from context; and __fish_seen_subcommand_from add' -l json
complete -c rapidctl -n '__fish_seen_subcommand_from context; and __fish_seen_subcommand_from add' -l color
complete -c rapidctl -n '__fish_seen_subcommand_from context; and __fish_seen_subcommand_from add' -s q
complete -c rapidctl -n '__fish_seen_subcommand_from context; and __fish_seen_subcommand_from add' -l quiet
complete -c rapidctl -n '__fish_seen_subcommand_from context; and __fish_seen_subcommand_from add' -s v
complete -c rapidctl -n '__fish_seen_subcommand_from context; and __fish_seen_subcommand_from add' -l verbose
complete -c rapidctl -n '__fish_seen_subcommand_from hosts' -s h
complete -c rapidctl -n '__fish_seen_subcommand_from hosts' -l help
complete -c rapidctl -n '__fish_seen_subcommand_from hosts' -l endpoint
complete -c rapidctl -n '__fish_seen_subcommand_from hosts' -s c
complete -c rapidctl -n '__fish_seen_subcommand_from hosts' -l context
complete -c rapidctl -n '__fish_seen_subcommand_from hosts' -l gpu
complete -c rapidctl -n '__fish_seen_subcommand_from hosts' -l timeout
complete -c rapidctl -n '__fish_seen_subcommand_from hosts' -l json
complete -c rapidctl -n '__fish_seen_subcommand_from hosts' -l color
complete -c rapidctl -n '__fish_seen_subcommand_from hosts' -s q
complete -c rapidctl -n '__fish_seen_subcommand_from hosts' -l quiet
complete -c rapidctl -n '__fish_seen_subcommand_from hosts' -s v
complete -c rapidctl -n '__fish_seen_subcommand_from hosts' -l verbose
complete -c rapidctl -n '__fish_seen_subcommand_from hosts' -l watch
complete -c rapidctl -n '__fish_seen_subcommand_from hosts' -s n
complete -c rapidctl -n '__fish_seen_subcommand_from config; and not __fish_seen_subcommand_from path show init' -s h
complete -c rapidctl -n '__fish_seen_subcommand_from config; and not __fish_seen_subcommand_from path show init' -l help
complete -c rapidctl -n '__fish_seen_subcommand_from config; and not __fish_seen_subcommand_from path show init' -l endpoint
complete -c rapidctl -n '__fish_seen_subcommand_from config; and not __fish_seen_subcommand_from path show init' -s c
complete -c rapidctl -n '__fish_seen_subcommand_from config; and not __fish_seen_subcommand_from path show init' -l context
complete -c rapidctl -n '__fish_seen_subcommand_from config; and not __fish_seen_subcommand_from path show init' -l gpu
complete -c rapidctl -n '__fish_seen_subcommand_from config; and not __fish_seen_subcommand_from path show init' -l timeout
complete -c rapidctl -n '__fish_seen_subcommand_from config; and not __fish_seen_subcommand_from path show init' -l json
complete -c rapidctl -n '__fish_seen_subcommand_from config; and not __fish_seen_subcommand_from path show init' -l color
complete -c rapidctl -n '__fish_seen_subcommand_from config; and not __fish_seen_subcommand_from path show init' -s q
complete -c rapidctl -n '__fish_seen_subcommand_from config; and not __fish_seen_subcommand_from path show init' -l quiet
complete -c rapidctl -n '__fish_seen_subcommand_from config; and not __fish_seen_subcommand_from path show init' -s v
complete -c rapidctl -n '__fish_seen_subcommand_from config; and not __fish_seen_subcommand_from path show init' -l verbose
complete -c rapidctl -n '__fish_seen_subcommand_from config; and not __fish_seen_subcommand_from path show init' -a 'path'
complete -c rapidctl -n '__fish_seen_subcommand_from config; and not __fish_seen_subcommand_from path show init' -a 'show'
complete -c rapidctl -n '__fish_seen_subcommand_from config; and not __fish_seen_subcommand_from path show init' -a 'init'
complete -c rapidctl -n '__fish_seen_subcommand_from config; and __fish_seen_subcommand_from path' -s h
complete -c rapidctl -n '__fish_seen_subcommand_from config; and __fish_seen_subcommand_from path' -l help
complete -c rapidctl -n '__fish_seen_subcommand_from config; and __fish_seen_subcommand_from path' -l endpoint
complete -c rapidctl -n '__fish_seen_subcommand_from config; and __fish_seen_subcommand_from path' -s c
complete -c rapidctl -n '__fish_seen_subcommand_from config; and __fish_seen_subcommand_from path' -l context
complete -c rapidctl -n '__fish_seen_subcommand_from config; and __fish_seen_subcommand_from path' -l gpu
complete -c rapidctl -n '__fish_seen_subcommand_from config; and __fish_seen_subcommand_from path' -l timeout
complete -c rapidctl -n '__fish_seen_subcommand_from config; and __fish_seen_subcommand_from path' -l json
complete -c rapidctl -n '__fish_seen_subcommand_from config; and __fish_seen_subcommand_from path' -l color
complete -c rapidctl -n '__fish_seen_subcommand_from config; and __fish_seen_subcommand_from path' -s q
complete -c rapidctl -n '__fish_seen_subcommand_from config; and __fish_seen_subcommand_from path' -l quiet
complete -c rapidctl -n '__fish_seen_subcommand_from config; and __fish_seen_subcommand_from path' -s v
complete -c rapidctl -n '__fish_seen_subcommand_from config; and __fish_seen_subcommand_from path' -l verbose
complete -c rapidctl -n '__fish_seen_subcommand_from config; and __fish_seen_subcommand_from show' -s h
complete -c rapidctl -n '__fish_seen_subcommand_from config; and __fish_seen_subcommand_from show' -l help
complete -c rapidctl -n '__fish_seen_subcommand_from config; and __fish_seen_subcommand_from show' -l endpoint
complete -c rapidctl -n '__fish_seen_subcommand_from config; and __fish_seen_subcommand_from show' -s c
complete -c rapidctl -n '__fish_seen_subcommand_from config; and __fish_seen_subcommand_from show' -l context
complete -c rapidctl -n '__fish_seen_subcommand_from config; and __fish_seen_subcommand_from show' -l gpu
complete -c rapidctl -n '__fish_seen_subcommand_from config; and __fish_seen_subcommand_from show' -l timeout
complete -c rapidctl -n '__fish_seen_subcommand_from config; and __fish_seen_subcommand_from show' -l json
complete -c rapidctl -n '__fish_seen_subcommand_from config; and __fish_seen_subcommand_from show' -l color
complete -c rapidctl -n '__fish_seen_subcommand_from config; and __fish_seen_subcommand_from show' -s q
complete -c rapidctl -n '__fish_seen_subcommand_from config; and __fish_seen_subcommand_from show' -l quiet
complete -c rapidctl -n '__fish_seen_subcommand_from config; and __fish_seen_subcommand_from show' -s v
complete -c rapidctl -n '__fish_seen_subcommand_from config; and __fish_seen_subcommand_from show' -l verbose
complete -c rapidctl -n '__fish_seen_subcommand_from config; and __fish_seen_subcommand_from show' -l origin
complete -c rapidctl -n '__fish_seen_subcommand_from config; and __fish_seen_subcommand_from init' -s h
complete -c rapidctl -n '__fish_seen_subcommand_from config; and __fish_seen_subcommand_from init' -l help
complete -c rapidctl -n '__fish_seen_subcommand_from config; and __fish_seen_subcommand_from init' -l endpoint
complete -c rapidctl -n '__fish_seen_subcommand_from config; and __fish_seen_subcommand_from init' -s c
complete -c rapidctl -n '__fish_seen_subcommand_from config; and __fish_seen_subcommand_from init' -l context
complete -c rapidctl -n '__fish_seen_subcommand_from config; and __fish_seen_subcommand_from init' -l gpu
complete -c rapidctl -n '__fish_seen_subcommand_from config; and __fish_seen_subcommand_from init' -l timeout
complete -c rapidctl -n '__fish_seen_subcommand_from config; and __fish_seen_subcommand_from init' -l json
complete -c rapidctl -n '__fish_seen_subcommand_from config; and __fish_seen_subcommand_from init' -l color
complete -c rapidctl -n '__fish_seen_subcommand_from config; and __fish_seen_subcommand_from init' -s q
complete -c rapidctl -n '__fish_seen_subcommand_from config; and __fish_seen_subcommand_from init' -l quiet
complete -c rapidctl -n '__fish_seen_subcommand_from config; and __fish_seen_subcommand_from init' -s v
complete -c rapidctl -n '__fish_seen_subcommand_from config; and __fish_seen_subcommand_from init' -l verbose
complete -c rapidctl -n '__fish_seen_subcommand_from doctor' -s h
complete -c rapidctl -n '__fish_seen_subcommand_from doctor' -l help
complete -c rapidctl -n '__fish_seen_subcommand_from doctor' -l endpoint
complete -c rapidctl -n '__fish_seen_subcommand_from doctor' -s c
complete -c rapidctl -n '__fish_seen_subcommand_from doctor' -l context
complete -c rapidctl -n '__fish_seen_subcommand_from doctor' -l gpu
complete -c rapidctl -n '__fish_seen_subcommand_from doctor' -l timeout
complete -c rapidctl -n '__fish_seen_subcommand_from doctor' -l json
complete -c rapidctl -n '__fish_seen_subcommand_from doctor' -l color
complete -c rapidctl -n '__fish_seen_subcommand_from doctor' -s q
complete -c rapidctl -n '__fish_seen_subcommand_from doctor' -l quiet
complete -c rapidctl -n '__fish_seen_subcommand_from doctor' -s v
complete -c rapidctl -n '__fish_seen_subcommand_from doctor' -l verbose
complete -c rapidctl -n '__fish_seen_subcommand_from schema' -s h
complete -c rapidctl -n '__fish_seen_subcommand_from schema' -l help
complete -c rapidctl -n '__fish_seen_subcommand_from schema' -l endpoint
complete -c rapidctl -n '__fish_seen_subcommand_from schema' -s c
complete -c rapidctl -n '__fish_seen_subcommand_from schema' -l context
complete -c rapidctl -n '__fish_seen_subcommand_from schema' -l gpu
complete -c rapidctl -n '__fish_seen_subcommand_from schema' -l timeout
complete -c rapidctl -n '__fish_seen_subcommand_from schema' -l json
complete -c rapidctl -n '__fish_seen_subcommand_from schema' -l color
complete -c rapidctl -n '__fish_seen_subcommand_from schema' -s q
complete -c rapidctl -n '__fish_seen_subcommand_from schema' -l quiet
complete -c rapidctl -n '__fish_seen_subcommand_from schema' -s v
complete -c rapidctl -n '__fish_seen_subcommand_from schema' -l verbose
complete -c rapidctl -n '__fish_seen_subcommand_from keys; and not __fish_seen_subcommand_from show make authorize trust' -s h
complete -c rapidctl -n '__fish_seen_subcommand_from keys; and not __fish_seen_subcommand_from show make authorize trust' -l help
complete -c rapidctl -n '__fish_seen_subcommand_from keys; and not __fish_seen_subcommand_from show make authorize trust' -l endpoint
complete -c rapidctl -n '__fish_seen_subcommand_from keys; and not __fish_seen_subcommand_from show make authorize trust' -s c
complete -c rapidctl -n '__fish_seen_subcommand_from keys; and not __fish_seen_subcommand_from show make authorize trust' -l context
complete -c rapidctl -n '__fish_seen_subcommand_from keys; and not __fish_seen_subcommand_from show make authorize trust' -l gpu
complete -c rapidctl -n '__fish_seen_subcommand_from keys; and not __fish_seen_subcommand_from show make authorize trust' -l timeout
complete -c rapidctl -n '__fish_seen_subcommand_from keys; and not __fish_seen_subcommand_from show make authorize trust' -l json
complete -c rapidctl -n '__fish_seen_subcommand_from keys; and not __fish_seen_subcommand_from show make authorize trust' -l color
complete -c rapidctl -n '__fish_seen_subcommand_from keys; and not __fish_seen_subcommand_from show make authorize trust' -s q
complete -c rapidctl -n '__fish_seen_subcommand_from keys; and not __fish_seen_subcommand_from show make authorize trust' -l quiet
complete -c rapidctl -n '__fish_seen_subcommand_from keys; and not __fish_seen_subcommand_from show make authorize trust' -s v
complete -c rapidctl -n '__fish_seen_subcommand_from keys; and not __fish_seen_subcommand_from show make authorize trust' -l verbose
complete -c rapidctl -n '__fish_seen_subcommand_from keys; and not __fish_seen_subcommand_from show make authorize trust' -a 'show'
complete -c rapidctl -n '__fish_seen_subcommand_from keys; and not __fish_seen_subcommand_from show make authorize trust' -a 'make'
complete -c rapidctl -n '__fish_seen_subcommand_from keys; and not __fish_seen_subcommand_from show make authorize trust' -a 'authorize'
complete -c rapidctl -n '__fish_seen_subcommand_from keys; and not __fish_seen_subcommand_from show make authorize trust' -a 'trust'
complete -c rapidctl -n '__fish_seen_subcommand_from keys; and __fish_seen_subcommand_from show' -s h
complete -c rapidctl -n '__fish_seen_subcommand_from keys; and __fish_seen_subcommand_from show' -l help
complete -c rapidctl -n '__fish_seen_subcommand_from keys; and __fish_seen_subcommand_from show' -l endpoint
complete -c rapidctl -n '__fish_seen_subcommand_from keys; and __fish_seen_subcommand_from show' -s c
complete -c rapidctl -n '__fish_seen_subcommand_from keys; and __fish_seen_subcommand_from show' -l context
complete -c rapidctl -n '__fish_seen_subcommand_from keys; and __fish_seen_subcommand_from show' -l gpu
complete -c rapidctl -n '__fish_seen_subcommand_from keys; and __fish_seen_subcommand_from show' -l timeout
complete -c rapidctl -n '__fish_seen_subcommand_from keys; and __fish_seen_subcommand_from show' -l json
complete -c rapidctl -n '__fish_seen_subcommand_from keys; and __fish_seen_subcommand_from show' -l color
complete -c rapidctl -n '__fish_seen_subcommand_from keys; and __fish_seen_subcommand_from show' -s q
complete -c rapidctl -n '__fish_seen_subcommand_from keys; and __fish_seen_subcommand_from show' -l quiet
complete -c rapidctl -n '__fish_seen_subcommand_from keys; and __fish_seen_subcommand_from show' -s v
complete -c rapidctl -n '__fish_seen_subcommand_from keys; and __fish_seen_subcommand_from show' -l verbose
complete -c rapidctl -n '__fish_seen_subcommand_from keys; and __fish_seen_subcommand_from make' -s h
complete -c rapidctl -n '__fish_seen_subcommand_from keys; and __fish_seen_subcommand_from make' -l help
complete -c rapidctl -n '__fish_seen_subcommand_from keys; and __fish_seen_subcommand_from make' -l endpoint
complete -c rapidctl -n '__fish_seen_subcommand_from keys; and __fish_seen_subcommand_from make' -s c
complete -c rapidctl -n '__fish_seen_subcommand_from keys; and __fish_seen_subcommand_from make' -l context
complete -c rapidctl -n '__fish_seen_subcommand_from keys; and __fish_seen_subcommand_from make' -l gpu
complete -c rapidctl -n '__fish_seen_subcommand_from keys; and __fish_seen_subcommand_from make' -l timeout
complete -c rapidctl -n '__fish_seen_subcommand_from keys; and __fish_seen_subcommand_from make' -l json
complete -c rapidctl -n '__fish_seen_subcommand_from keys; and __fish_seen_subcommand_from make' -l color
complete -c rapidctl -n '__fish_seen_subcommand_from keys; and __fish_seen_subcommand_from make' -s q
complete -c rapidctl -n '__fish_seen_subcommand_from keys; and __fish_seen_subcommand_from make' -l quiet
complete -c rapidctl -n '__fish_seen_subcommand_from keys; and __fish_seen_subcommand_from make' -s v
complete -c rapidctl -n '__fish_seen_subcommand_from keys; and __fish_seen_subcommand_from make' -l verbose
complete -c rapidctl -n '__fish_seen_subcommand_from keys; and __fish_seen_subcommand_from make' -l out
complete -c rapidctl -n '__fish_seen_subcommand_from keys; and __fish_seen_subcommand_from authorize' -s h
complete -c rapidctl -n '__fish_seen_subcommand_from keys; and __fish_seen_subcommand_from authorize' -l help
complete -c rapidctl -n '__fish_seen_subcommand_from keys; and __fish_seen_subcommand_from authorize' -l endpoint
complete -c rapidctl -n '__fish_seen_subcommand_from keys; and __fish_seen_subcommand_from authorize' -s c
complete -c rapidctl -n '__fish_seen_subcommand_from keys; and __fish_seen_subcommand_from authorize' -l context
complete -c rapidctl -n '__fish_seen_subcommand_from keys; and __fish_seen_subcommand_from authorize' -l gpu
complete -c rapidctl -n '__fish_seen_subcommand_from keys; and __fish_seen_subcommand_from authorize' -l timeout
complete -c rapidctl -n '__fish_seen_subcommand_from keys; and __fish_seen_subcommand_from authorize' -l json
complete -c rapidctl -n '__fish_seen_subcommand_from keys; and __fish_seen_subcommand_from authorize' -l color
complete -c rapidctl -n '__fish_seen_subcommand_from keys; and __fish_seen_subcommand_from authorize' -s q
complete -c rapidctl -n '__fish_seen_subcommand_from keys; and __fish_seen_subcommand_from authorize' -l quiet
complete -c rapidctl -n '__fish_seen_subcommand_from keys; and __fish_seen_subcommand_from authorize' -s v
complete -c rapidctl -n '__fish_seen_subcommand_from keys; and __fish_seen_subcommand_from authorize' -l verbose
complete -c rapidctl -n '__fish_seen_subcommand_from keys; and __fish_seen_subcommand_from authorize' -l operator
complete -c rapidctl -n '__fish_seen_subcommand_from keys; and __fish_seen_subcommand_from authorize' -l file
complete -c rapidctl -n '__fish_seen_subcommand_from keys; and __fish_seen_subcommand_from trust' -s h
complete -c rapidctl -n '__fish_seen_subcommand_from keys; and __fish_seen_subcommand_from trust' -l help
complete -c rapidctl -n '__fish_seen_subcommand_from keys; and __fish_seen_subcommand_from trust' -l endpoint
complete -c rapidctl -n '__fish_seen_subcommand_from keys; and __fish_seen_subcommand_from trust' -s c
complete -c rapidctl -n '__fish_seen_subcommand_from keys; and __fish_seen_subcommand_from trust' -l context
complete -c rapidctl -n '__fish_seen_subcommand_from keys; and __fish_seen_subcommand_from trust' -l gpu
complete -c rapidctl -n '__fish_seen_subcommand_from keys; and __fish_seen_subcommand_from trust' -l timeout
complete -c rapidctl -n '__fish_seen_subcommand_from keys; and __fish_seen_subcommand_from trust' -l json
complete -c rapidctl -n '__fish_seen_subcommand_from keys; and __fish_seen_subcommand_from trust' -l color
complete -c rapidctl -n '__fish_seen_subcommand_from keys; and __fish_seen_subcommand_from trust' -s q
complete -c rapidctl -n '__fish_seen_subcommand_from keys; and __fish_seen_subcommand_from trust' -l quiet
complete -c rapidctl -n '__fish_seen_subcommand_from keys; and __fish_seen_subcommand_from trust' -s v
complete -c rapidctl -n '__fish_seen_subcommand_from keys; and __fish_seen_subcommand_from trust' -l verbose
