//go:build shared

package main

import "C"

//export Twice
func Twice(value C.long) C.long { return value * 2 }
