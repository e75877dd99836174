-- Nodes of the lowest levels, fifteen of sixteen rows, are hashed from the entries when they are asked for, and no longer kept. Made anew,
-- which costs less than deleting and leaves no room behind. The check keeps out a server of an earlier version that still runs.
create table audit.kept_nodes (
  program_id text collate "C" not null,
  level      smallint not null constraint nodes_of_kept_levels check (level >= 4),
  number     bigint not null,
  hash       bytea not null,
  constraint kept_nodes_pkey primary key (program_id, level, number)
);
insert into audit.kept_nodes select program_id, level, number, hash from audit.nodes where level >= 4 order by program_id, level, number;
drop table audit.nodes;
alter table audit.kept_nodes rename to nodes;
alter index audit.kept_nodes_pkey rename to nodes_pkey;
