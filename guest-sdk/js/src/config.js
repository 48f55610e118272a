import * as config from "capwasm:config/config@0.1.0";

export const get = (key, fallback) => config.get(key) ?? fallback;
export const all = () => Object.fromEntries(config.all());
