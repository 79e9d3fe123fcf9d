mod proxy;
mod race;
