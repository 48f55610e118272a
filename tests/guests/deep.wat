;; Uses up as much of its stack as it is told to, and then calls the host.
(component
  (import "test:host/api@1.0.0" (instance $api
    (export "number" (func (param "n" u32) (result u32)))))
  (core func $number (canon lower (func $api "number")))
  (core module $m
    (import "host" "number" (func $number (param i32) (result i32)))
    (func $number' (export "number") (param i32) (result i32)
      (if (result i32) (local.get 0)
        (then (i32.add (i32.const 1) (call $number' (i32.sub (local.get 0) (i32.const 1)))))
        (else (call $number (i32.const 0))))))
  (core instance $i (instantiate $m (with "host" (instance (export "number" (func $number))))))
  (func (export "number") (param "n" u32) (result u32) (canon lift (core func $i "number"))))
