-- Of any method, as text: "auto" until it is validated. Postgres puts its body in the place of each call.
create function epochs_of(method jsonb) returns text language sql immutable as $$
    select coalesce(method -> 'supervised' ->> 'n_epochs', method -> 'dpo' ->> 'n_epochs',
                    method -> 'reinforcement' -> 'hyperparameters' ->> 'n_epochs')
$$;
