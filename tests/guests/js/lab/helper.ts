// Blank lines and types, so that lines of the bundle are not those of the source.

export interface Deep {
  text: string;
}



export function breaks(deep: Deep): never {
  throw new Error(deep.text);
}
