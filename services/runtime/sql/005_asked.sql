-- Somebody waits for a projection at a server that does not follow the program: the one that does rests no longer.
alter table fenrun.followed add column asked boolean not null default false;
