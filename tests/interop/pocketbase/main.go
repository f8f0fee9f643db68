// PocketBase with JavaScript hooks: the real server the PocketBase interop test polls and hears from.
package main

import (
	"log"

	"github.com/pocketbase/pocketbase"
	"github.com/pocketbase/pocketbase/plugins/jsvm"
)

func main() {
	app := pocketbase.New()
	jsvm.MustRegister(app, jsvm.Config{HooksWatch: false})
	if err := app.Start(); err != nil {
		log.Fatal(err)
	}
}
