//! Routes and their description, of which a server that starts needs only the first.
//!
//! The description of all operations is large, and so is the code that makes it: it is made
//! when somebody asks for it.

use axum::Router;
use utoipa::openapi::OpenApi;
use utoipa_axum::router::{OpenApiRouter, UtoipaMethodRouter};

use super::App;

/// Handlers of one path.
pub(super) struct Entry {
    pub(super) serve: fn(Router<App>) -> Router<App>,
    pub(super) describe: fn() -> UtoipaMethodRouter<App>,
}

/// The handlers of one path, by module and name: `routes!(user::user_list, user::user_create)`.
macro_rules! routes {
    ($($module:ident :: $handler:ident),+ $(,)?) => {
        $crate::rest::routes::Entry {
            serve: |router| {
                use utoipa_axum::PathItemExt as _;
                $(
                    let router = {
                        utoipa_axum::paste! {
                            type Described = $module::[<__path_ $handler>];
                        }
                        let path = <Described as utoipa::Path>::path();
                        let methods = <Described as utoipa::Path>::methods();
                        let on = methods.iter().fold(axum::routing::MethodRouter::new(), |on, method| {
                            on.on(method.to_method_filter(), $module::$handler)
                        });
                        router.route(&path, on)
                    };
                )+
                router
            },
            describe: || utoipa_axum::routes!($($module::$handler),+),
        }
    };
}
pub(super) use routes;

/// Paths and their handlers.
#[derive(Default)]
pub(super) struct Routes(Vec<Entry>);

impl Routes {
    /// Adds the handlers of a path.
    pub(super) fn routes(mut self, entry: Entry) -> Self {
        self.0.push(entry);
        self
    }

    /// What is served.
    pub(super) fn serve(self) -> Router<App> {
        let entries = self.0.into_iter();
        entries.fold(Router::new(), |router, entry| (entry.serve)(router))
    }

    /// What `begin` says, and what the handlers say of themselves.
    pub(super) fn describe(self, begin: OpenApi) -> OpenApi {
        let router = OpenApiRouter::with_openapi(begin);
        let entries = self.0.into_iter();
        let all = entries.fold(router, |router, entry| router.routes((entry.describe)()));
        all.split_for_parts().1
    }
}
